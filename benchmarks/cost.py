"""What a training step of minglow.glow costs, on paper: nothing is measured. See docs/scaling.md.

    python benchmarks/cost.py    the official sizes on 1, 8 and 64 GPUs; with arguments, on a CPU:
    python benchmarks/cost.py --shape 32 32 3 -L 3 -K 32 --hidden 512 --batch 64 --gflops 400

Parameters, products' FLOPs and bytes in caches are exact; bytes moved, calls and rates are assumed.
"""

from __future__ import annotations

import argparse
from math import ceil, inf, prod
from typing import NamedTuple

STORED = 7  # layers at the end of each level whose caches a reversible flow stores (models/glow.py)
VECTORS, UPDATE = 5, 17  # as long as the parameters; how often a step reads or writes one of these
MEMORY, IMAGES = 80e9, 50e6  # bytes of an H100; images of the training whose hours are printed, assumed
# Operation by operation, as CuPy runs kernels/reference.py, a step moves so many times what the
# compiled loops.py moves, which reads each array once, and makes so many times as many calls.
APART_MOVED, APART_CALLS = 2.4, 1.9


class Model(NamedTuple):
    """A glow of images, and the batch of all ranks together; `number` is the bytes of one number."""

    shape: tuple[int, int, int]
    levels: int
    steps: int
    hidden: int
    batch: int
    learned_prior: bool = True
    additive: bool = False
    number: int = 4


class Layer(NamedTuple):
    """One layer and a complete batch; stored and moved are numbers, not bytes."""

    params: int = 0
    products: tuple[tuple[int, int, int], ...] = ()  # (rows, in, out) of forward's
    stored: int = 0  # in its cache and in no other layer's
    moved: tuple[int, int] = (0, 0)  # read and written between the products, forward and backward
    calls: tuple[int, int] = (2, 2)  # of kernels and NumPy, products included


class Rates(NamedTuple):
    """What one rank sustains in a second, not its peak: FLOPs, and bytes of the other rates."""

    flops: float
    bandwidth: float  # of the memory that holds the arrays
    launch: float  # seconds of Python and driver for each call
    device: bool = False  # calls run ahead of the work, and kernels operation by operation
    staging: float = inf  # between device and host
    host: float = 10e9  # of the host's memory, for copies around the Allreduce
    shared: float = 7e9  # of MPI between two ranks of a machine
    network: float = 25e9 / 8  # of MPI between machines: eight ranks share 25 GB/s
    draw: float = 3e-9  # seconds for a random number: every rank draws those of the complete batch


H100 = Rates(0.6 * 67e12, 0.7 * 3.35e12, launch=10e-6, device=True, staging=50e9, host=20e9)


def levels_of(model: Model) -> list[list[Layer]]:
    """The layers of each level, in the order of minglow.glow: squeeze, steps, split prior or Flatten."""
    levels, channels, rows = [], model.shape[2], model.batch * prod(model.shape[:2])
    for last in [False] * (model.levels - 1) + [True]:
        channels, rows = 4 * channels, rows // 4
        size, half = rows * channels, rows * channels // 2
        actnorm = Layer(2 * channels, (), size, (2 * size, 3 * size), (7, 9))
        # The 1x1 convolution's cache is its input, which is the actnorm's output and counted there.
        mix = Layer(channels**2, ((rows, channels, channels),), calls=(6, 9))
        prior = Layer(9 * channels**2 // 2 + 2 * channels, ((rows, 9 * channels // 2, channels),),
                      15 * half, (24 * half, 28 * half), (9, 11))
        levels.append([Layer(moved=(2 * size, 2 * size)),
                       *model.steps * [actnorm, mix, coupling(model, rows, channels // 2)],
                       *[Layer()] * last, *[prior] * (model.learned_prior and not last)])
        channels //= 2
    return levels


def coupling(model: Model, rows: int, half: int) -> Layer:
    """A coupling with conv_net, whose cache holds patches, two hidden layers and the net's output;
    an affine one's also the coupling's output, the scale and its derivative."""
    width, out = model.hidden, half if model.additive else 2 * half
    changed, hidden, y = rows * half, rows * width, rows * out
    forward, backward = (17, 17) if model.additive else (54, 22)  # 10: gather or scatter; scale, couple
    return Layer(
        9 * half * width + width**2 + 9 * width * out + 4 * width + 2 * out,
        ((rows, 9 * half, width), (rows, width, width), (rows, width, 9 * out)),
        9 * changed + 2 * hidden + y + (0 if model.additive else 4 * changed),
        (forward * changed + 4 * hidden + 12 * y, backward * changed + 8 * hidden + 13 * y), (33, 32))


def passes(model: Model, reversible: bool = False) -> list[tuple[Layer, int]]:
    """What a step runs: each layer forward (0) and backward (1), and of a reversible flow all but the
    last few of each level once more, by their inverse, whose products are forward's."""
    levels = levels_of(model)
    again = [(layer, 0) for level in levels for layer in level[:-STORED]] if reversible else []
    return [(layer, way) for level in levels for layer in level for way in (0, 1)] + again


def parameters(model: Model) -> int:
    """How many numbers flow.flat.value holds."""
    return sum(layer.params for level in levels_of(model) for layer in level)


def flops(model: Model, reversible: bool = False) -> int:
    """FLOPs of a step's products; backward has two for each of forward's, with respect to the weights
    and the input. Without determinants and inverses of 1x1 weights."""
    return sum((1 + way) * 2 * prod(sizes)
               for layer, way in passes(model, reversible) for sizes in layer.products)


def activations(model: Model, reversible: bool = False) -> int:
    """Bytes in the cache of flow.bijection.forward."""
    levels, size = levels_of(model), model.batch * prod(model.shape)
    numbers = sum(layer.stored for level in levels
                  for layer in (level[-STORED:] if reversible else level))
    for i, level in enumerate(levels if reversible else []):
        if len(level) > STORED or i == 0:  # the input of the stored layers; else the output below it
            numbers += size >> i
        if model.additive and (i == model.levels - 1 or not model.learned_prior):
            numbers += size >> i  # the level's output, which an affine coupling's cache has already
    return model.number * numbers


def memory(model: Model, reversible: bool = False) -> int:
    """Bytes of a rank that takes the complete batch: vectors, cache, and the temporary arrays of one
    coupling's backward at the first level: three hidden layers, patches of both sides, four outputs."""
    rows, channels = model.batch * prod(model.shape[:2]) // 4, 4 * model.shape[2]
    taps = 9 * channels * (2 if model.additive else 3) // 2
    numbers = VECTORS * parameters(model) + rows * (3 * model.hidden + taps + 4 * channels)
    return model.number * numbers + activations(model, reversible)


def largest_batch(model: Model, reversible: bool = False) -> int:
    """How many images fit a GPU: all but the vectors grows in proportion to them."""
    none, one = (memory(model._replace(batch=batch), reversible) for batch in (0, 1))
    return max(0, int((MEMORY - none) // (one - none)))


def elementwise(model: Model, reversible: bool = False, device: bool = False) -> tuple[float, float]:
    """Bytes that a step reads and writes between the products, and its calls."""
    found = passes(model, reversible)
    moved = model.number * (UPDATE * parameters(model) + sum(layer.moved[way] for layer, way in found))
    calls = sum(layer.calls[way] for layer, way in found)
    return (APART_MOVED * moved, APART_CALLS * calls) if device else (moved, calls)


def allreduce(gradient: int, ranks: int, rates: Rates) -> float:
    """Seconds of ProcessGroup.average for so many bytes: device to host and back, a copy and a
    division there, and a ring, in which each rank sends 2 (N - 1) / N of them."""
    link = rates.shared if ranks <= 8 else min(rates.shared, rates.network)
    around = 2 / rates.staging + 4 / rates.host
    return gradient * (around + 2 * (ranks - 1) / ranks / link) if ranks > 1 else 0.0


def seconds(model: Model, rates: Rates, ranks: int = 1, reversible: bool = False) -> dict[str, float]:
    """A step of a rank that takes its shard of the batch: parts and total. Within a product multiplying
    and moving overlap: the larger counts. Products and kernels follow each other, and add. A CPU's
    calls are made by the thread that works, and add; a device's are queued: the larger counts."""
    mine = model._replace(batch=model.batch // ranks)
    products = sum((1 + way) * max(2 * n * a * b / rates.flops,
                                   mine.number * (n * (a + b) + a * b) / rates.bandwidth)
                   for layer, way in passes(mine, reversible) for n, a, b in layer.products)
    moved, calls = elementwise(mine, reversible, rates.device)
    found = {"draw": rates.draw * model.batch * prod(model.shape), "products": products,
             "between": moved / rates.bandwidth, "calls": calls * rates.launch,
             "Allreduce": allreduce(model.number * parameters(model), ranks, rates)}
    queued = min(products + found["between"], found["calls"]) if rates.device else 0.0
    return found | {"total": sum(found.values()) - queued}


# Shapes, levels, depths, widths and couplings are the official code's; batches are assumed.
OFFICIAL = {"CIFAR-10": Model((32, 32, 3), 3, 32, 512, 512),
             "ImageNet 32": Model((32, 32, 3), 3, 48, 512, 512),
             "ImageNet 64": Model((64, 64, 3), 4, 48, 512, 128),
             "CelebA-HQ 256": Model((256, 256, 3), 6, 32, 512, 40, additive=True)}


def tables() -> str:
    """The official sizes on H100s, as two Markdown tables: sizes, and milliseconds of a step."""
    sizes = ["model | parameters | batch | TFLOP | GB stored | GB reversible | fits | most | reversible",
             " | ".join(9 * ["---"])]
    times = ["model | GPUs | each | draw | products | between | calls | Allreduce | step | share | h",
             " | ".join(11 * ["---"])]
    for name, model in OFFICIAL.items():
        gigabytes = memory(model) / 1e9, memory(model, True) / 1e9
        most = largest_batch(model), largest_batch(model, True)
        fits = next((mode for mode, b in zip(("stored", "reversible"), most) if b >= model.batch), "no")
        sizes.append("{} | {:.1f} M | {} | {:.1f} | {:.1f} | {:.1f} | {} | {} | {}".format(
            name, parameters(model) / 1e6, model.batch, flops(model) / 1e12, *gigabytes, fits, *most))
        for ranks in 1, 8, 64:
            each = ceil(model.batch / ranks)  # minglow needs equal shards: rounded up
            found = seconds(model._replace(batch=each * ranks), H100, ranks, each > most[0])
            parts = " | ".join(f"{1e3 * part:.0f}" for part in found.values())
            times.append(f"{name} | {ranks} | {each}{' rev.' * (each > most[0])} | {parts} "
                         f"| {found['Allreduce'] / found['total']:.0%} "
                         f"| {found['total'] * IMAGES / (each * ranks) / 3600:.0f}")
    return "\n\n".join("\n".join(f"| {line} |" for line in table) for table in (sizes, times))


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, or a prediction for the model and the CPU that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, help="height, width, channels")
    for flag, value, text in (
            ("-L", 2, "levels"), ("-K", 8, "steps of each"), ("--hidden", 64, "width"),
            ("--batch", 64, "of all ranks"), ("--ranks", 1, "processes"), ("--launch", 3.0, "us a call"),
            ("--gflops", 200.0, "10^9 FLOP/s a rank"), ("--bandwidth", 10.0, "10^9 bytes/s a rank")):
        parser.add_argument(flag, type=type(value), default=value, help=f"{text}; {value}")
    for flag in "--reversible", "--additive", "--no-prior":
        parser.add_argument(flag, action="store_true")
    a = parser.parse_args(arguments)
    if a.batch % a.ranks:
        parser.error(f"expected a batch that divides evenly among {a.ranks} ranks, got {a.batch}")
    if not a.shape:
        return print(tables())
    model = Model(a.shape, a.L, a.K, a.hidden, a.batch, not a.no_prior, a.additive)
    rates = Rates(1e9 * a.gflops, 1e9 * a.bandwidth, a.launch / 1e6, host=1e9 * a.bandwidth)
    found, mine = seconds(model, rates, a.ranks, a.reversible), model._replace(batch=a.batch // a.ranks)
    print(f"{parameters(model):,} parameters, {flops(model, a.reversible) / 1e9:.2f} GFLOP a step, "
          f"{memory(mine, a.reversible) / 2**20:.0f} MiB a rank")
    for name, part in found.items():
        print(f"{name:10} {1e3 * part:10.2f} ms  {part / found['total']:4.0%}")


if __name__ == "__main__":
    main()

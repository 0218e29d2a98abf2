"""minglow's flows as subjects: stored or reversible, on any backend."""

from __future__ import annotations

import minglow
from benchmarks.subject import Size, Subject
from minglow.training.optimizers import Adam


def minglow_glow(size: Size, reversible: bool = False, backend: str = "numba") -> Subject:
    """minglow.glow with Adam."""
    flow = minglow.glow(size.shape, size.levels, size.steps, size.hidden, reversible=reversible, rng=0)
    flow = minglow.to_device(flow) if backend == "cupy" else flow
    optimizer = Adam(flow.flat)

    def train_step(x):
        with minglow.use(backend):
            flow.flat.grad[...] = 0
            nll = flow.nll_backward(x).nll
            optimizer.step(1e-4)
        return float(minglow.to_host(nll))

    def log_prob(x):
        with minglow.use(backend):
            return minglow.to_host(flow.log_prob(x))

    def sample(n):
        with minglow.use(backend):
            return minglow.to_host(flow.sample(n, 0))

    name = ", ".join(["minglow"] + ["reversible"] * reversible + [backend] * (backend != "numba"))
    load = minglow.to_device if backend == "cupy" else minglow.to_host
    return Subject(name, flow.flat.value.size, load, train_step, log_prob, sample)

"""Faults made by hand, each planted in a copy of minglow, to see which test kills it.

    python tests/tools/faults.py         all of them, in about half an hour on two cores
    python tests/tools/faults.py sign    those whose name has this word

Prints a line for each, `killed by` or SURVIVED, and exits with 1 if any survived.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["contract/test_starts.py", "contract/test_kernels.py", "contract/test_nets.py", "numbers/test_bits.py",
         "contract/test_composition.py", "contract/test_errors.py", "numbers/test_distributions.py",
         "numbers/test_logit.py", "numbers/test_autoencoder.py", "numbers/test_dequantizers.py",
         "numbers/test_extension.py", "numbers/test_inference.py", "data/test_readers.py",
         "runs/test_settings.py", "runs/test_resume.py", "contract/test_bijections.py",
         "runs/test_checkpoint.py", "runs/test_untrusted_config.py",
         "cli/test_ranges.py", "cli/test_command_line.py", "contract/test_testing.py", "contract/test_threads.py",
         "runs/test_life.py", "runs/test_disks.py", "runs/test_bombs.py", "runs/test_weights.py",
         "cli/test_bad_inputs.py", "arrays/test_device.py", "arrays/test_distributed.py",
         "numbers/test_splines.py", "numbers/test_vectors.py", "contract/test_conditional.py",
         "runs/test_training_on_tables.py", "data/test_tables.py"]

# The tests that run first for the faults of a folder or file below minglow/.
FIRST = {
    "testing": ["contract/test_testing.py", "contract/test_foreign_layers.py"],
    "params.py": ["contract/test_testing.py"],
    "bijection.py": ["contract/test_testing.py"],
    "kernels": ["contract/test_kernels.py"],
    "nets": ["contract/test_nets.py"],
    "nets/context.py": ["contract/test_conditional.py"],
    "chain.py": ["contract/test_bijections.py"],
    "flow.py": ["runs/test_training_on_tables.py", "contract/test_conditional.py"],
    "layers": ["contract/test_bijections.py"],
    "layers/spline.py": ["numbers/test_splines.py", "contract/test_bijections.py"],
    "layers/spline_coupling.py": ["numbers/test_vectors.py", "contract/test_bijections.py"],
    "layers/conditional.py": ["contract/test_conditional.py"],
    "layers/context.py": ["contract/test_conditional.py"],
    "layers/standardization.py": ["numbers/test_vectors.py", "contract/test_bijections.py"],
    "layers/whitening.py": ["numbers/test_vectors.py", "contract/test_bijections.py"],
    "training/monitor.py": ["runs/test_training_on_tables.py"],
    "training/evaluation.py": ["runs/test_training_on_tables.py", "numbers/test_bits.py"],
    "bases": ["numbers/test_distributions.py"],
    "dequantization": ["numbers/test_bits.py", "numbers/test_dequantizers.py"],
    "models": ["contract/test_starts.py", "contract/test_errors.py", "numbers/test_vectors.py", "numbers/test_autoencoder.py"],
    "inference.py": ["numbers/test_inference.py"],
    "training": ["numbers/test_bits.py", "numbers/test_extension.py", "runs/test_resume.py",
                 "runs/test_training_on_tables.py", "arrays/test_distributed.py", "numbers/test_dequantizers.py"],
    "arrays": ["contract/test_threads.py", "arrays/test_device.py"],
    "data": ["data/test_readers.py", "data/test_tables.py", "runs/test_bombs.py"],
    "storage": ["runs/test_checkpoint.py", "runs/test_weights.py", "runs/test_disks.py"],
    "runs": ["runs/test_settings.py", "runs/test_untrusted_config.py", "runs/test_resume.py",
             "runs/test_checkpoint.py"],
    "cli": ["cli/test_ranges.py", "cli/test_command_line.py", "cli/test_bad_inputs.py"],
}

# name: (file below minglow/, text as it stands, text of the fault)
FAULTS = {
    "spline: the other root's branch in the inverse": ("layers/spline.py", "np.where(u > 0, below", "np.where(u < 0, below"),
    "spline: log derivative without its square": ("layers/spline.py", "np.log(p) + 2 * np.log(s / q)", "np.log(p) + np.log(s / q)"),
    "spline: gradient of a width forgets the bins after it": ("layers/spline.py", "total(own, dwidth) - total(before, dx)", "total(own, dwidth)"),
    "spline: the two derivatives of a bin swapped in the gradient": (
        "layers/spline.py", "total(own, dd0)[..., 1:] + total(own, dd1)[..., :-1]", "total(own, dd1)[..., 1:] + total(own, dd0)[..., :-1]"),
    "spline: NaN is outside": ("layers/spline.py", "_knots(raw, bound), np.abs(x) > bound", "_knots(raw, bound), ~(np.abs(x) <= bound)"),
    "spline: every value in the bin after its own": ("layers/spline.py", "(value[..., None] >= edges[..., 1:-1])", "(value[..., None] >= edges[..., :-2])"),
    "spline: dlog_det acts outside the bound": ("layers/spline.py", "dlog = np.where(outside, 0, dy), np.where(outside, 0, dlog)", "dlog = np.where(outside, 0, dy), dlog + 0 * dy"),
    "spline coupling: the net's output by parameter, not by channel": (
        "layers/spline_coupling.py", "h.reshape(*x2.shape, self.net_outputs)", "np.swapaxes(h.reshape(*x2.shape[:-1], self.net_outputs, -1), -1, -2)"),
    "spline coupling: gradient of the identity channels is lost": (
        "layers/spline_coupling.py", "join(dy1 + self.net.backward(", "join(self.net.backward("),
    "conditional: dc of the nets is lost": (
        "layers/conditional.py", "join(dc + self.dcontext(), flat(dx))", "join(dc, flat(dx))"),
    "conditional: dc of the output is lost": (
        "layers/conditional.py", "join(dc + self.dcontext(), flat(dx))", "join(0 * dc + self.dcontext(), flat(dx))"),
    "conditional: the context stays after an error": (
        "layers/context.py", "        try:\n            yield\n        finally:\n            self.value", "        if True:\n            yield\n            self.value"),
    "conditional: threads share a context": (
        "layers/context.py", "class Context(threading.local):", "class Context:"),
    "conditional: a trace without its context": (
        "layers/conditional.py", "self._steps(c, self.inner.trace_inverse(inner_y))", "self.inner.trace_inverse(inner_y)"),
    "context net: dc of the first pixel only": ("nets/context.py", "ds.shape[-1]).sum(axis=1)", "ds.shape[-1])[:, 0]"),
    "context net: the last dc replaces the others": (
        "nets/context.py", "self.context.grad += ds", "self.context.grad[...] = ds"),
    "standardization: log_det without h*w": (
        "layers/standardization.py", "-pixels(x) * np.log(std).sum()", "-np.log(std).sum()"),
    "standardization: inverse forgets the mean": ("layers/standardization.py", "(y * std + mean)", "(y * std)"),
    "standardization: gradient of the inverse map": ("layers/standardization.py", "(dy / self.constants", "(dy * self.constants"),
    "standardization: small units are constant": ("layers/standardization.py", "np.finfo(x.dtype).eps * np.abs(mean)", "np.finfo(x.dtype).eps * np.maximum(1, np.abs(mean))"),
    "whitening: sign of log_det": ("layers/whitening.py", "-pixels(x) * np.log(std)", "pixels(x) * np.log(std)"),
    "whitening: not symmetric": ("layers/whitening.py", "* factors) @ vectors.T)", "* factors) @ vectors)"),
    "whitening: no floor": ("layers/whitening.py", "FLOOR**2 * variance.max()", "0 * variance.max()"),
    "whitening: covariance about zero": ("layers/whitening.py", "rows(x) - rows(x).mean(axis=0, dtype=np.float64)", "rows(x).astype(np.float64)"),
    "chain: trace_inverse from the first layer on": ("chain.py", "for layer in reversed(self.layers):\n            y = yield from", "for layer in self.layers:\n            y = yield from"),
    "realnvp: masks that do not alternate": ("models/realnvp.py", "scale\"), first), layers.Reverse(dims)]", "scale\"), first)]"),
    "nice: even halves of an odd number": ("models/nice.py", "(dims + 1 - i % 2) // 2", "(dims + 1) // 2"),
    "spline flow: coupling reads every number twice": ("models/spline.py", "np.roll(np.eye(dims), first, axis=0)", "np.eye(dims)"),
    "flow: drop keeps the bad samples": ("flow.py", "return x[finite]", "return x[~finite]"),
    "flow: keep raises": ("flow.py", 'if on_bad == "keep" or all_finite(x):', "if all_finite(x):"),
    "flow: the culprit is the last layer": ("flow.py", "if not all_finite(x)),", "),"),
    "flow: no derivative with respect to the context": ("flow.py", "return Loss(nll, dx, cross_entropy, dcontext)", "return Loss(nll, dx, cross_entropy, dx)"),
    "training: patience counts the best": ("training/state.py", "self.best, self.since_best = held_out_loss, 0", "self.best, self.since_best = held_out_loss, 1"),
    "training: patience leaves the last parameters": ("training/loop.py", "apply_averages(best=keep_best)", "apply_averages()"),
    "training: resuming forgets the evaluations since the best": ("training/state.py", "self.step, self.best, self.since_best = step, best, since_best", "self.step, self.best = step, best"),
    "training: the best parameters are not remembered": ("training/state.py", "learner.best[...] = learner.average.average", "pass"),
    "training: the first batch standardizes a table": ("training/loop.py", "batch_size if data.bins else min(len(data.train), INITIAL_ROWS)", "batch_size"),
    "training: contexts of other rows": ("training/loop.py", "context = context_at(flow, data.train_context, chosen[own])", "context = context_at(flow, data.train_context, own)"),
    "evaluation: a Gaussian without correlations": ("training/evaluation.py", "np.atleast_2d(np.corrcoef(train.astype(np.float64), rowvar=False))", "np.eye(train.shape[1])"),
    "monitor: distances without their center": ("training/monitor.py", "largest((to_host(x) - center) / radius)", "largest(to_host(x) / radius)"),
    "monitor: the layer that magnifies least": ("training/monitor.py", "factor, name = max((", "factor, name = min(("),
    "monitor: units count as magnification": ("training/monitor.py", "if not isinstance(layer, Standardization):", "if True:"),
    "monitor: a loss worse than a Gaussian's goes unsaid": ("training/monitor.py", "if best > simple + (", "if False and best > simple + ("),
    "tables: held-out rows are trained on": ("data/table.py", "Table(x[~chosen], x[chosen],", "Table(x, x[chosen],"),
    "tables: noise of two rounding steps": ("data/rounding.py", "noise = steps * (", "noise = 2 * steps * ("),
    "actnorm: log_det without h*w": (
        "layers/actnorm.py", "constant_log_det(x, pixels(x) * log_scale", "constant_log_det(x, log_scale"),
    "actnorm: sign of log_det": (
        "layers/actnorm.py", "constant_log_det(x, pixels(x) *", "constant_log_det(x, -pixels(x) *"),
    "actnorm: inverse without its shift": (
        "layers/actnorm.py", "-shift * np.exp(log_scale), np", "0 * shift, np"),
    "actnorm: epsilon in the inverse": (
        "layers/actnorm.py", "np.exp(log_scale), np.exp(-log_scale)", "np.exp(log_scale), 1 / (np.exp(log_scale) + 1e-6)"),
    "actnorm: gradient of log_scale forgets dlog_det": (
        "layers/actnorm.py", "dlog_scale + dlog_det.sum() * pixels(y)", "dlog_scale"),
    "actnorm: gradient of log_scale forgets h*w": (
        "layers/actnorm.py", "dlog_det.sum() * pixels(y)", "dlog_det.sum()"),
    "actnorm: missing gradient of shift": (
        "layers/actnorm.py", 'self.grads["shift"] += dshift', "pass"),
    "actnorm: gradient overwritten": (
        "layers/actnorm.py", 'self.grads["shift"] += dshift', 'self.grads["shift"][...] = dshift'),
    "actnorm: initialize with the wrong sign": (
        "layers/actnorm.py", '["shift"][...] = -mean', '["shift"][...] = mean'),
    "actnorm: initializes in forward": (
        "layers/actnorm.py", "        y = kernels.shift_scale(", "        shift[...] = -rows(x).mean(0)\n        y = kernels.shift_scale("),
    "actnorm: constant channel divides by 0": (
        "layers/actnorm.py", "np.where(constant, 1, std)", "std"),
    "invconv: log_det without h*w": (
        "layers/invconv.py", "pixels(x) * self.log_abs_det(weight)", "self.log_abs_det(weight)"),
    "invconv: W for W^T in forward": ("layers/invconv.py", "(rows(x) @ weight.T)", "(rows(x) @ weight)"),
    "invconv: W^T for W in dx": (
        "layers/invconv.py", "(rows(dy) @ weight)", "(rows(dy) @ weight.T)"),
    "invconv: the result for an old weight is returned": ("layers/invconv.py", "or not (matrix == last).all()", ""),
    "invconv: W^-1 for W^-T": ("layers/invconv.py", "pixels(x) * inverse.T", "pixels(x) * inverse"),
    "invconv: gradient forgets h*w": ("layers/invconv.py", "* pixels(x) * inverse.T", "* inverse.T"),
    "invconv: gradient of W transposed": (
        "layers/invconv.py", "dweight += rows(dy).T @ rows(x) +", "dweight += rows(x).T @ rows(dy) +"),
    "invconv: singular weights accepted": (
        "layers/invconv.py", "if not condition < 1 /", "if condition < 0 /"),
    "invconv LU: gradient of L at the wrong rows": (
        "layers/invconv_lu.py", 'dlower[self.constants["order"]] = dpermuted_lower', "dlower[...] = dpermuted_lower"),
    "invconv LU: gradient of log_s forgets its scale": (
        "layers/invconv_lu.py", "np.diag(dupper) * np.diag(upper)", "np.diag(dupper)"),
    "invconv LU: signs are not checked": (
        "layers/invconv_lu.py", 'if not (np.abs(constants["sign"]) == 1).all():', "if False:"),
    "invconv LU: sign forgotten": (
        "layers/invconv_lu.py", 'self.constants["sign"] * np.exp(log_s)', "np.exp(log_s)"),
    "shuffle: inverse with the order itself": (
        "layers/permute.py", 'y[..., np.argsort(self.constants["order"])]', 'y[..., self.constants["order"]]'),
    "permutation: orders are not checked": (
        "layers/permute.py", "if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(order))):", "if False:"),
    "squeeze: dlog_det is not checked": ("layers/squeeze.py", "        check_dlog_det(self, dlog_det, dy)\n", ""),
    "images: divisibility is not checked": (
        "arrays/shapes.py", "x.ndim != 4 or x.shape[1] % height or x.shape[2] % width or x.shape[3] % last", "x.ndim != 4"),
    "squeeze: rows and columns of a block swapped in the inverse": (
        "layers/squeeze.py", "transpose(0, 1, 4, 2, 5, 3)", "transpose(0, 1, 5, 2, 4, 3)"),
    "additive: inverse ignores the conditioner": ("layers/coupling.py", "join(y1, y2 - h)", "join(y1, y2)"),
    "additive: gradient does not reach the conditioner": (
        "layers/coupling.py", "dy1 + self.net.backward(dy2, net_cache), dy2", "dy1, dy2"),
    "affine: halves swapped in forward": (
        "layers/coupling.py", "return y.reshape(x.shape), log_det,", "return join(*halves(y.reshape(x.shape))[::-1]), log_det,"),
    "affine: inverse shifts before it scales": (
        "kernels/reference.py", "    x[:, :, -changing:] /= scale\n    x[:, :, -changing:] -= shift\n", "    x[:, :, -changing:] -= shift\n    x[:, :, -changing:] /= scale\n"),
    "affine: stale cache from inverse": (
        "layers/coupling.py", "(net_cache, flat_y, scale, dlog_scale_ds)", "(net_cache, x, scale, dlog_scale_ds)"),
    "affine: gradient of the identity channels is lost": (
        "layers/coupling.py", "dx1 += self.net.backward", "dx1[...] = self.net.backward"),
    "affine: shift and scale swapped in dh": (
        "kernels/reference.py", "np.concatenate([dshift, ds], axis=2)", "np.concatenate([ds, dshift], axis=2)"),
    "couple: log_det summed over the batch": (
        "kernels/reference.py", "return y, log_scale.sum(axis=(1, 2))\n", "return y, log_scale.sum(axis=(1, 2)).mean() + 0 * log_scale[:, 0, 0]\n"),
    "couple: dlog_det is ignored": ("kernels/reference.py", "(dy2 * y2 + dlog_det[:, None, None])", "(dy2 * y2)"),
    "couple: x for y in the gradient": ("kernels/loops.py", "(dy2 * y2 + dlog_det[b])", "(dy2 + dlog_det[b])"),
    "sigmoid_scale: gradient forgets the floor": (
        "layers/scale.py", "(1 - floor) * e / (", "e / ("),
    "gather: padding off by one": ("kernels/reference.py", "i, j, every = di - size // 2,", "i, j, every = di - size // 2 + 1,"),
    "gather: padding off by one, loops": (
        "kernels/loops.py", "patches[b, i, j, di], padded[i + di, j * channels:]", "patches[b, i, j, di], padded[i + di, (j + pad) * channels:]"),
    "scatter: the last neighbor overwrites": ("kernels/reference.py", "x[there] += patches", "x[there] = patches"),
    "relu: gradient passes everywhere": ("kernels/reference.py", "shift_scale_backward(dy * (y > 0), y, scale)", "shift_scale_backward(dy, y, scale)"),
    "transposed convolution: gradient of its taps": ("nets/conv.py", "(rows(x).T @ dtaps)", "(rows(x).T @ dtaps)[:, ::-1]"),
    "convolution: gradient x 1.01": ("nets/conv.py", "dweight += (rows(dy).T @ patches)", "dweight += 1.01 * (rows(dy).T @ patches)"),
    "dense: missing gradient of bias": ("nets/dense.py", 'self.grads["bias"] += rows(dy).sum(axis=0)', "pass"),
    "shift_scale net: gradient forgets the 3": ("nets/net.py", '+= 3 * dlog_scale', "+= dlog_scale"),
    "sequence: last net is not initialized": ("nets/net.py", "        for net in self.nets:\n            x = net.initialize(x)", "        for net in self.nets[:2]:\n            x = net.initialize(x)"),
    "chain: one log_det left out": ("chain.py", "total = total + log_det\n            caches", "total = log_det\n            caches"),
    "chain: caches from inverse in the wrong order": ("chain.py", "return y, caches[::-1]", "return y, caches"),
    "reversible chain: backward inverts from its input": ("chain.py", "last_log_det, (y, [(h, last_cache)])", "last_log_det, (-y, [])"),
    "reversible chain: continues from its output": ("chain.py", "y, last_cache = stored.pop()", "_, last_cache = stored.pop()"),
    "reversible chain: a log_det left out": ("chain.py", "log_det + last_log_det", "last_log_det"),
    "chain: one log_det left out without caches": (
        "chain.py", "total = total + log_det\n        return x, total", "total = log_det\n        return x, total"),
    "level: inner's log_det left out": ("layers/level.py", "log_det + inner_log_det", "log_det"),
    "level: trace continues with the other half": (
        "layers/level.py", "a, b = halves((yield from", "b, a = halves((yield from"),
    "level: the other half is factored out": ("layers/level.py", "a, b = halves(h)", "b, a = halves(h)"),
    "flow: log_det subtracted": ("flow.py", "self.base.log_prob(z, labels) + log_det", "self.base.log_prob(z, labels) - log_det"),
    "flow: gradient summed over the batch": ("flow.py", "dlog_prob = np.full_like(log_det, -1 / len(x))", "dlog_prob = np.full_like(log_det, -1)"),
    "normal: temperature ignored": ("bases/standard.py", "dtype(temperature) * noise", "noise"),
    "flow: a batch statistic leaks": ("flow.py", "bijection.forward_only(x)", "bijection.forward_only(x - x.mean(0))"),
    "flow: nll_backward without the number of threads of the others": (
        "flow.py", "        with self.conditioned(x, context) as bijection:\n            z, log_det, cache",
        "        for bijection in [self.bijection]:\n            z, log_det, cache"),
    "normal: constant without its half": ("bases/standard.py", "- 0.5 * prod", "- prod"),
    "scaling: log_det without h*w": ("layers/scaling.py", "pixels(x) * log_scale.sum()", "log_scale.sum()"),
    "scaling: gradient forgets dlog_det": ("layers/scaling.py", " + dlog_det.sum() * pixels(y)", ""),
    "checkerboard: one color for both lines": ("layers/checkerboard.py", "1 - parity::2", "parity::2"),
    "checkerboard: the net reads the pixels that change": (
        "layers/checkerboard.py", "from_fields(join(x, np.zeros_like(x))", "from_fields(join(np.zeros_like(x), x)"),
    "checkerboard: gradient from the wrong fields": (
        "layers/checkerboard.py", "split(to_fields(dboard, self.parity))[0]", "split(to_fields(dboard, self.parity))[1]"),
    "swap: nothing is swapped": ("layers/permute.py", "np.roll(np.arange(check_count(\"channels\", channels)), channels // 2)", "np.arange(channels)"),
    "uneven coupling: halves nevertheless": ("layers/coupling.py", "return split(x, self.identity_channels)", "return split(x)"),
    "tanh_scale: derivative of another function": ("layers/scale.py", "1 - t * t", "1 - t"),
    "logit: log_det without its constant": ("layers/logit.py", "x[0].size * log(self.c / 2)", "0.0"),
    "logit: gradient forgets dlog_det": ("layers/logit.py", "(dy + dlog_det * np.tanh(y / 2))", "dy"),
    "logit: half the derivative": ("layers/logit.py", "np.tanh(y / 2) / y", "np.tanh(y) / y"),
    "edge bias: inside for outside": ("nets/conv.py", "return 1 - kernels.gather(inside", "return kernels.gather(inside"),
    "residual: gradient of the input lost": ("nets/net.py", "return dy + self.net.backward(dy, cache)", "return self.net.backward(dy, cache)"),
    "logistic: one tail": ("bases/standard.py", "(size + 2 * np.log1p", "(size + np.log1p"),
    "logistic: derivative of another width": ("bases/standard.py", "np.tanh(self.as_vectors(z) / 2)", "np.tanh(self.as_vectors(z))"),
    "top prior: log_std forgets its pixels": ("bases/top_prior.py", "top.shape[1] * self.params", "self.params"),
    "top prior: classes unweighted": ("bases/top_prior.py", "- log(log_probs.shape[1])", ""),
    "top prior: labels ignored in the gradient": ("bases/top_prior.py", "responsibility = one_hot(labels, responsibility)", "pass"),
    "top prior: samples without means": ("bases/top_prior.py", ' + mean[labels, None]', ""),
    "classifier: the label is not subtracted": (
        "bases/top_prior.py", "(probability - one_hot(labels, probability))", "probability"),
    "vae: kl without its means": ("models/vae.py", "(mean**2 + np.exp", "(np.exp"),
    "vae: gradient of sigma x 1.01": ("models/vae.py", '+= (1 - u**2)', '+= 1.01 * (1 - u**2)'),
    "vae: the target's gradient is lost": ("models/vae.py", "encoder_cache) - dy", "encoder_cache)"),
    "vae: importance weights without log n": ("models/vae.py", " - log(samples)", ""),
    "auto-encoder: gradient forgets D": ("models/autoencoder.py", "/ y.size", "/ len(y)"),
    "dequantizer: sign of its log_det": ("dequantization/dequantizers.py", "log_prob(e) - log_det", "log_prob(e) + log_det"),
    "dequantizer: log 1.7 left out": ("dequantization/dequantizers.py", "        log_q -= dtype(u[0].size * log(NEARLY_UNIFORM))\n", ""),
    "dequantizer: gradient of log q lost": ("dequantization/dequantizers.py", "+ dlog_q[:, None, None, None] * (2 * u - 1)", ""),
    "bound: without log n": ("dequantization/dequantizers.py", "[:, 0] - log(samples)", "[:, 0]"),
    "inference: every level is resampled": ("inference.py", "views[level][...] = new_views[level]", "z[...] = noise"),
    "inference: strength of 1": ("inference.py", "STRENGTH * strength", "strength"),
    "inference: the last level reversed": ("inference.py", "z.reshape(len(z), *shape)", "z[:, ::-1].reshape(len(z), *shape)"),
    "bits: 255 bins for 256": ("dequantization/bits.py", "log2(bins)", "log2(bins - 1)"),
    "bits: noise of half a bin": ("dequantization/bits.py", "(images.astype(dtype) + noise)", "(images.astype(dtype) + noise / 2)"),
    "flat parameters: a copy instead of a view": ("params.py", "owner.params[name] = self.view(self.value, path)", "owner.params[name] = self.view(self.value, path).copy()"),
    "checkpoint: constants are not restored": (
        "storage/checkpoint.py", "target[...] = to_device_of(arrays[name], target)", "target[...] = to_device_of(arrays[name], target) if target.dtype.kind == 'f' else target"),
    "checkpoint: settings are not compared": ("storage/checkpoint.py", "if found.get(name) != own.get(name):", "if False:"),
    "checkpoint: the settings of a layer that only the file has are ignored": (
        "storage/checkpoint.py", "sorted(own.keys() | found.keys())", "sorted(own)"),
    "checkpoint: constants are not checked": ("storage/checkpoint.py", "part.check_constants(constants)", "pass"),
    "checkpoint: NaN is accepted": ("storage/checkpoint.py", "if not np.isfinite(array).all():", "if False:"),
    "checkpoint: another format is read": ("storage/checkpoint.py", 'if manifest["format"] != FORMAT:', "if False:"),
    "weights: another format is read": ("storage/weights.py", 'if about.get("format", FORMAT) != FORMAT:', "if False:"),
    "config: values are not validated": ("storage/settings.py", "detail.check(name, hint, getattr(self, name))", "getattr(self, name)"),
    "config: an unknown entry of a file is accepted": (
        "storage/settings.py", "if key not in values or key not in expected:", "if key not in values:"),
    "average: moves away": ("kernels/loops.py", "weight * (value[i] - average[i])", "weight * (average[i] - value[i])"),
    "training: the average is not used": ("training/loop.py", "    state.apply_averages(best=keep_best)\n", ""),
    "state: the age of the average is lost": (
        "training/state.py", "learner.optimizer.steps = learner.average.steps = step", "learner.optimizer.steps = step"),
    "state: the rest of the epoch is forgotten": (
        "training/state.py", "self.rng, self.remaining = rng, remaining\n", "self.rng = rng\n"),
    "state: the random generator is not restored": (
        "training/state.py", "self.rng, self.remaining = rng, remaining\n", "self.remaining = remaining\n"),
    "state: the flow's constants are not restored": ("training/state.py", "        restore(saved, self.flow)\n", ""),
    "state: training resumes with other images": (
        "training/state.py", "if saved.facts.get(key) != getattr(self, key):", "if False:"),
    "state: parameters in another order are accepted": ("training/state.py", "if value is not None and names", "if False and names"),
    "folder: two processes train in one folder": ("runs/folder.py", "        lock.acquire()\n", "        pass\n"),
    "folder: a lock counts as content": ("runs/folder.py", "folder / METRICS, folder / LOCK,", "folder / METRICS,"),
    "folder: the free space is not checked": ("runs/folder.py", "if free < needed:", "if False:"),
    "pictures: a picture is written in place": (
        "runs/figures.py", "with replacing(path) as file:\n        figure", "with path.open(\"wb\") as file:\n        figure"),
    "loading: the number of parameters is not compared with the file's size": (
        "runs/loading.py", "if config.min_bytes() > saved.path.stat().st_size:", "if False:"),
    "loading: samples of any size are drawn": (
        "runs/loading.py", "if SAMPLE_BYTES * prod(config.shape) > memory.installed():", "if False:"),
    "metrics: a line may be missing": ("runs/metrics.py", "        if not complete:", "        if False:"),
    "options: an option of another model is accepted": ("cli/parser.py", "if owners and model not in owners:", "if False:"),
    "options: a shared option has the choices of one model": ("cli/parser.py", "replace(detail, choices=choices)", "detail"),
    "train: --resume can be combined with other options": ("cli/train.py", "        if others:\n", "        if False:\n"),
    "terminal: a closed pipe stops training": (
        "cli/terminal.py", "method(*arguments)\n        except OSError:", "method(*arguments)\n        except KeyError:"),
    "signals: a second signal does not end the process": ("cli/signals.py", "        if received:\n", "        if False:\n"),
    "archive: hashes are not compared": ("storage/archive.py", "or description(array) != expected[name]", ""),
    "archive: compressed members are accepted": ("storage/archive.py", "info.compress_type != zipfile.ZIP_STORED or ", ""),
    "archive: written in place": ("storage/archive.py", "path.with_name(path.name + TEMPORARY.format(os.getpid()))", "path"),
    "archive: an unfinished file is left": ("storage/archive.py", "        temporary.unlink(missing_ok=True)\n        raise", "        raise"),
    "bounded: an OSError of damage gets through": ("data/bounded.py", "except MemoryError:\n            raise", "except (MemoryError, OSError):\n            raise"),
    "bounded: a header's size is trusted": ("data/bounded.py", "if not 0 <= count <= available:", "if False:"),
    "npz: labels are not checked before they are read": ("data/npy.py", "partial(_check_labels, len(array))", "None"),
    "validation: control characters are printed": ("validation.py", "c if c.isprintable() else", "c if True else"),
    "pictures: many pixels in few bytes are decoded": ("data/pictures.py", "if megapixels > max(SMALL_MEGAPIXELS", "if False and (SMALL_MEGAPIXELS"),
    "diagnosis: the last gradient for the first": (
        "training/diagnosis.py", "for name in reversed(flow.flat.where):", "for name in flow.flat.where:"),
    "distributed: the sum of the gradients for their mean": ("training/distributed.py", "            total /= self.size\n", ""),
    "distributed: shards overlap": ("training/distributed.py", "(number + 1) * count // shards)", "count)"),
    "distributed: the last process that failed is reported": (
        "training/distributed.py", "failed.index(True)", "self.size - 1 - failed[::-1].index(True)"),
    "distributed: an error stays in its process": (
        "training/distributed.py", "            if any(failed):\n", "            if failed[self.rank]:\n"),
    "training: micro-batches are added, not averaged": ("training/loop.py", "    flow.flat.grad /= parts\n", ""),
    "training: every process takes the first shard": (
        "training/loop.py", "state.rng, own)\n", "state.rng, slice(0, config.batch_size // processes.size))\n"),
    "evaluation: a process without images draws no noise": (
        "training/evaluation.py", "dequantizer.dequantize(batch, rng, flow.dtype)  #", "pass  #"),
    "device: a layer waits for the device": ("layers/invconv.py", "if on_host(result) and not np.isfinite", "if not np.isfinite"),
    "device: arrays of both sides are accepted": ("arrays/shapes.py", "if on_host(x) != on_host(parameter):", "if False:"),
    "device: the vectors are not built again": ("arrays/device.py", "module.flat = FlatParams(module)", "pass"),
    "device: a restored state stays on the host": (
        "training/state.py", "to_device_of(saved.arrays[f\"{name}.{key}\"], target)", "saved.arrays[f\"{name}.{key}\"]"),
    "kit: a batch on kinks passes check_log_det": (
        "testing/invertibility.py", "if required and not compared:", "if False:"),
    "kit: variables that cannot be compared pass check_backward": (
        "testing/gradients.py", "        if left_out:\n", "        if False:\n"),
    "kit: a kink counts as smooth": ("testing/numerical.py", "smooth = gap <= SMOOTH", "smooth = gap <= 1e9 + SMOOTH"),
    "kit: no shorter step near a kink": ("testing/numerical.py", "STEPS = 3e-5, 3e-6, 3e-7", "STEPS = (3e-5,)"),
    "kit: one tolerance for all log_det": (
        "testing/invertibility.py", "tolerance.append(1e-9 + error)", "tolerance.append(1e-9)"),
    "kit: one tolerance for all round trips": (
        "testing/invertibility.py", " + 100 * rounding(candidate.inverse_only, y)", ""),
    "kit: a factor of almost 1 is reported": ("testing/explain.py", " or abs(ratio - 1) < 1e-4", ""),
    "kit: wrong channels are not named": ("testing/explain.py", "if not at.all():", "if False:"),
    "kit: a stale inverse passes": ("testing/updates.py", "if missing and changed and", "if False and"),
    "kit: float64 in backward passes": ("testing/checks.py", "if value.dtype != np.float32:", "if False:"),
    "kit: float32's log_det is not compared": (
        "testing/checks.py", 'found = {"y": y, "log_det": log_det}', 'found = {"y": y}'),
    "kit: dictionaries in a cache are not seen": ("testing/purity.py", "parts = list(value.values())", "parts = []"),
    "kit: objects in a cache are not seen": (
        "testing/purity.py", '*getattr(value, "__dict__", {}).values(), ', ""),
    "kit: dx of one sample is not compared": ("testing/purity.py", 'results["dx"] = ', "_ = "),
    "kit: inverse before training is not called": (
        "testing/checks.py", 'yield "inverse(y)", layer.inverse(y)[0]', "pass"),
    "kit: gradients may change outside backward": ("testing/purity.py", "value[...] = 1  #", "pass  #"),
    "kit: a call may change earlier results": (
        "testing/purity.py", "for earlier, value, old in returned:", "for earlier, value, old in ():"),
    "kit: results may depend on earlier calls": (
        "testing/purity.py", "for found, value in zip(_arrays(result), _arrays(expected)):", "for found, value in ():"),
    "kit: the batch is blamed for what a layer remembers": (
        "testing/purity.py", "layer = copy.deepcopy(layer)\n", "pass\n"),
    "kit: a gradient that is not linear passes": (
        "testing/gradients.py", "np.allclose(large, 1024 * found[name]", "np.allclose(large, large"),
    "kit: NaN is compared": ("testing/gradients.py", "if not np.all(np.isfinite(gradient)):", "if False:"),
    "kit: all of dlog_det has one sign": ("testing/gradients.py", "np.arange(len(log_det)) % 2, 1, -1", "True, 1, -1"),
    "kit: a gradient that is slightly wrong is called right": (
        "testing/explain.py", "> tolerance + 1e-8 * scale", "> 1e-4 * scale"),
    "kit: one number has a factor": ("testing/explain.py", "several = np.sum(expected != 0) > 1", "several = True"),
    "kit: a sum over the batch is not explained": (
        "testing/explain.py", 'explain_total(found, expected) or', '"" or'),
    "kit: initialize may set any attribute": (
        "testing/checks.py", "if value != settings.get((owner, name)):", "if False:"),
    "kit: x of another number of channels is stretched": (
        "testing/examples.py", "len(y) != len(x) or y.size != x.size", "False"),
    "kit: shapes of one channel come first": ("testing/examples.py", "for size in (6, 3, 5, 8, 7)", "for size in ()"),
    "kit: misspelled names of properties are accepted": (
        "testing/__init__.py", "if name not in names]", "if False]"),
    "params: arrays in attributes are accepted": (
        "params.py", 'if not isinstance(held, Module) and not name.startswith("_"):', "if False:"),
    "params: nets in bound methods are not found": ("params.py", "isinstance(value, MethodType)", "False"),
    "params: nets in closures are not found": ("params.py", "isinstance(value, FunctionType)", "False"),
    "params: lists among the children are accepted": ("params.py", "if not isinstance(child, Module):", "if False:"),
    "kit: a flow counts as a bijection": (
        "testing/examples.py", "isinstance(layer, (Bijection, Net) if nets else Bijection)", 'hasattr(layer, "walk")'),
    "params: modules that are not registered are accepted": (
        "params.py", "id(inner) not in registered and", "False and"),
    "params: a parameter without gradient is accepted": (
        "params.py", "name not in part.grads or part.grads[name].shape != value.shape", "False"),
    "params: integers are accepted": ("bijection.py", " or value.dtype not in (np.float32, np.float64)", ""),
    "adam: no bias correction": (
        "training/optimizers.py", "learning_rate * root / (1 - self.beta1**self.steps)", "learning_rate * root"),
}


def killer(file: str, old: str, new: str) -> str | None:
    """The first test that fails with the fault planted, or None."""
    with tempfile.TemporaryDirectory() as folder:
        for part in "minglow", "tests", "docs":
            shutil.copytree(ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "setup.cfg", folder)
        target = Path(folder, "minglow", file)
        text = target.read_text(encoding="utf-8")
        if text.count(old) < 1:
            raise SystemExit(f"{file} no longer holds {old!r}: write the fault anew")
        target.write_text(text.replace(old, new), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": folder, "NUMBA_DISABLE_JIT": "1",
                       "OPENBLAS_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "mutants"}
        first = FIRST.get(file) or FIRST.get(Path(file).parts[0], [])
        tests = dict.fromkeys(first + TESTS)  # each of them once
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-n", "0", "-p", "no:cacheprovider",
                   *(f"tests/{test}" for test in tests)]
        result = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True,
                                check=False)
    failed = [line.split()[1] for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if result.returncode and not failed:
        raise SystemExit(f"the tests cannot run: {result.stderr}{result.stdout}")
    return failed[0] if failed else None


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    survived = []
    chosen = {name: fault for name, fault in FAULTS.items() if word in name}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, test in zip(chosen, pool.map(lambda fault: killer(*fault), chosen.values())):
            print(f"{name:66} {'killed by ' + test if test else 'SURVIVED'}", flush=True)
            survived += [name] if test is None else []
    print(f"{len(chosen) - len(survived)} of {len(chosen)} killed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

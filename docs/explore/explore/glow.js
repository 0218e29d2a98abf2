// minglow's layers in JavaScript, for flows that are trained already: forward and inverse, no gradients.
//
// Each class is one of minglow's (minglow/layers, minglow/nets), under its name and with its formulas; a
// browser test holds their numbers against minglow's. An array is {n, h, w, c, data}: n samples of h x w
// pixels with c channels, channels last, in one Float64Array. A vector is an image of one pixel.
//
//   bijection.forward(x)  -> {y, logDet}     data -> latents; logDet has a number for each sample
//   bijection.inverse(y)  -> x               latents -> data
//   net.forward(x)        -> y               what stands in a coupling needs no inverse
"use strict";

const glow = (() => {
  /** An array of zeros, or one around numbers that are there already. */
  function array(n, h, w, c, data = new Float64Array(n * h * w * c)) {
    return {n, h, w, c, data};
  }

  const like = (x, data) => ({...x, data});
  const constant = (x, value) => new Float64Array(x.n).fill(value);

  // Bijections

  /** y_c = (x_c + shift_c) exp(log_scale_c);  log|det J| = h w sum_c log_scale_c. */
  class ActNorm {
    constructor({shift, log_scale}) {
      this.shift = shift.data;
      this.scale = log_scale.data.map(Math.exp);
      this.sum = log_scale.data.reduce((sum, value) => sum + value, 0);
    }

    forward(x) {
      const y = x.data.map((value, i) => (value + this.shift[i % x.c]) * this.scale[i % x.c]);
      return {y: like(x, y), logDet: constant(x, x.h * x.w * this.sum)};
    }

    inverse(y) {
      return like(y, y.data.map((value, i) => value / this.scale[i % y.c] - this.shift[i % y.c]));
    }
  }

  /** y = W x in each pixel;  log|det J| = h w log|det W|. */
  class InvConv1x1 {
    constructor({weight}) {
      this.channels = weight.shape[0];
      this.weight = weight.data;
      ({inverse: this.inverseWeight, logAbsDet: this.logAbsDet} = invert(weight.data, this.channels));
    }

    forward(x) {
      return {y: mix(x, this.weight), logDet: constant(x, x.h * x.w * this.logAbsDet)};
    }

    inverse(y) {
      return mix(y, this.inverseWeight);
    }
  }

  /** [x1, x2] = x;  [shift, raw] = net(x1);  y = [x1, (x2 + shift) scale(raw)];  log|det J| = sum log scale. */
  class AffineCoupling {
    constructor(params, {net}, {scale}) {
      this.net = net;
      this.logScale = SCALES[scale];
    }

    forward(x) {
      const y = like(x, x.data.slice()), logDet = constant(x, 0), size = x.h * x.w * x.c;
      this.each(x, (i, shift, logScale) => {
        y.data[i] = (x.data[i] + shift) * Math.exp(logScale);
        logDet[Math.floor(i / size)] += logScale;
      });
      return {y, logDet};
    }

    inverse(y) {
      const x = like(y, y.data.slice());
      this.each(y, (i, shift, logScale) => { x.data[i] = y.data[i] / Math.exp(logScale) - shift; });
      return x;
    }

    /** Call act(i, shift, logScale) for each number i of the half that changes. x1 is the same in x and y. */
    each(x, act) {
      const half = x.c / 2, pixels = x.n * x.h * x.w;
      const passing = array(x.n, x.h, x.w, half);
      for (let p = 0; p < pixels; p++) {
        for (let c = 0; c < half; c++) passing.data[p * half + c] = x.data[p * x.c + c];
      }
      const said = this.net.forward(passing).data; // (pixels, 2 half): shift, then raw
      for (let p = 0; p < pixels; p++) {
        for (let c = 0; c < half; c++) {
          act(p * x.c + half + c, said[p * x.c + c], this.logScale(said[p * x.c + half + c]));
        }
      }
    }
  }

  /** The logarithm of a coupling's scale, from what its net says (minglow/layers/scale.py). */
  const SCALES = {
    exp_scale: raw => raw,
    // scale = floor + (1 - floor) sigmoid(raw + 2), without an exponential that overflows
    sigmoid_scale(raw) {
      const t = raw + 2, floor = 1e-3;
      return Math.log(floor + (1 - floor) * Math.exp(Math.min(t, 0)) / (1 + Math.exp(-Math.abs(t))));
    },
  };

  /** Every 2 x 2 block of pixels becomes one:  y[i, j, 4c + 2di + dj] = x[2i + di, 2j + dj, c];  log|det J| = 0. */
  class Squeeze {
    forward(x) {
      const y = array(x.n, x.h / 2, x.w / 2, 4 * x.c);
      Squeeze.pairs(x, y, (there, here) => { y.data[here] = x.data[there]; });
      return {y, logDet: constant(x, 0)};
    }

    inverse(y) {
      const x = array(y.n, 2 * y.h, 2 * y.w, y.c / 4);
      Squeeze.pairs(x, y, (there, here) => { x.data[there] = y.data[here]; });
      return x;
    }

    /** Call move(index in x, index in y) for every number. */
    static pairs(x, y, move) {
      for (let n = 0; n < x.n; n++) {
        for (let i = 0; i < x.h; i++) {
          for (let j = 0; j < x.w; j++) {
            for (let c = 0; c < x.c; c++) {
              const pixel = (n * y.h + (i >> 1)) * y.w + (j >> 1);
              move(((n * x.h + i) * x.w + j) * x.c + c, pixel * y.c + 4 * c + 2 * (i % 2) + j % 2);
            }
          }
        }
      }
    }
  }

  /** An image as one vector of latents;  log|det J| = 0. */
  class Flatten {
    constructor(params, children, {shape}) {
      this.shape = shape;
    }

    forward(x) {
      return {y: array(x.n, 1, 1, x.h * x.w * x.c, x.data), logDet: constant(x, 0)};
    }

    inverse(y) {
      const [c, w = 1, h = 1] = [...this.shape].reverse();
      return array(y.n, h, w, c, y.data);
    }
  }

  /** Layers in a row; their log-determinants add up. */
  class Chain {
    constructor(params, children) {
      this.layers = Object.values(children);
    }

    forward(x) {
      const total = constant(x, 0);
      for (const layer of this.layers) {
        const {y, logDet} = layer.forward(x);
        logDet.forEach((value, n) => { total[n] += value; });
        x = y;
      }
      return {y: x, logDet: total};
    }

    inverse(y) {
      return this.layers.reduceRight((h, layer) => layer.inverse(h), y);
    }
  }

  /** [a, b] = steps(x), each half of the channels;  z = [b, inner(a)]: b leaves, a goes on. */
  class Level {
    constructor(params, {steps, inner}, {half}) {
      Object.assign(this, {steps, inner, half});
    }

    forward(x) {
      const {y: h, logDet} = this.steps.forward(x);
      const [a, b] = channels(h);
      const {y: rest, logDet: innerLogDet} = this.inner.forward(a);
      return {y: besides(b, rest), logDet: logDet.map((value, n) => value + innerLogDet[n])};
    }

    inverse(z) {
      const [h, w, c] = this.half;
      const [left, rest] = columns(z, h * w * c);
      const b = array(z.n, h, w, c, left.data);
      return this.steps.inverse(joined(this.inner.inverse(rest), b));
    }
  }

  // Nets

  /** Nets in a row. */
  class Sequence {
    constructor(params, children) {
      this.nets = Object.values(children);
    }

    forward(x) {
      return this.nets.reduce((h, net) => net.forward(h), x);
    }
  }

  /** y = x W + bias in each pixel; W: (C_in, C_out). */
  class Dense {
    constructor({weight, bias}) {
      [this.channelsIn, this.channelsOut] = weight.shape;
      this.weight = weight.data;
      this.bias = bias ? bias.data : new Float64Array(this.channelsOut);
    }

    forward(x) {
      const y = array(x.n, x.h, x.w, this.channelsOut), pixels = x.n * x.h * x.w;
      for (let p = 0; p < pixels; p++) {
        y.data.set(this.bias, p * y.c);
        addProduct(x.data, p * x.c, x.c, this.weight, 0, y.data, p * y.c, y.c);
      }
      return y;
    }
  }

  /** y[i, j] = sum over taps of W[:, di, dj] x[i + di - 1, j + dj - 1], zeros outside; W: (C_out, 3, 3, C_in). */
  class Conv {
    constructor({weight}) {
      const [out, size, , channelsIn] = weight.shape;
      this.channelsOut = out;
      // The taps as TransposedConv has them, (C_in, 3, 3, C_out) in reverse order: one loop serves both.
      const taps = size * size, turned = new Float64Array(weight.data.length);
      for (let o = 0; o < out; o++) {
        for (let t = 0; t < taps; t++) {
          for (let c = 0; c < channelsIn; c++) {
            turned[(c * taps + taps - 1 - t) * out + o] = weight.data[(o * taps + t) * channelsIn + c];
          }
        }
      }
      this.transposed = new TransposedConv({weight: {shape: [channelsIn, size, size, out], data: turned}});
    }

    forward(x) {
      return this.transposed.forward(x);
    }
  }

  /** y[i + di - 1, j + dj - 1] += x[i, j] W[:, di, dj] for each pixel and tap; W: (C_in, 3, 3, C_out). */
  class TransposedConv {
    constructor({weight}) {
      [this.channelsIn, this.size, , this.channelsOut] = weight.shape;
      // As (3, 3, C_in, C_out): each tap's matrix in one piece.
      const {channelsIn, channelsOut, size} = this, taps = size * size;
      this.weight = new Float64Array(weight.data.length);
      for (let c = 0; c < channelsIn; c++) {
        for (let t = 0; t < taps; t++) {
          const row = weight.data.subarray((c * taps + t) * channelsOut, (c * taps + t + 1) * channelsOut);
          this.weight.set(row, (t * channelsIn + c) * channelsOut);
        }
      }
    }

    forward(x) {
      const y = array(x.n, x.h, x.w, this.channelsOut), r = this.size >> 1;
      for (let n = 0; n < x.n; n++) {
        for (let i = 0; i < x.h; i++) {
          for (let j = 0; j < x.w; j++) {
            for (let di = 0; di < this.size; di++) {
              for (let dj = 0; dj < this.size; dj++) {
                const k = i + di - r, l = j + dj - r;
                if (k < 0 || k >= x.h || l < 0 || l >= x.w) continue; // outside the image
                addProduct(x.data, ((n * x.h + i) * x.w + j) * x.c, x.c,
                           this.weight, (di * this.size + dj) * x.c * y.c,
                           y.data, ((n * x.h + k) * x.w + l) * y.c, y.c);
              }
            }
          }
        }
      }
      return y;
    }
  }

  /** y = max(0, x). */
  class ReLU {
    forward(x) {
      return like(x, x.data.map(value => Math.max(0, value)));
    }
  }

  /** Actnorm, then ReLU. */
  class NormReLU extends ReLU {
    constructor(params, {norm}) {
      super();
      this.norm = norm;
    }

    forward(x) {
      return super.forward(this.norm.forward(x).y);
    }
  }

  /** y = (x + shift) exp(3 log_scale). */
  class ShiftScale {
    constructor({shift, log_scale}) {
      this.shift = shift.data;
      this.scale = log_scale.data.map(value => Math.exp(3 * value));
    }

    forward(x) {
      return like(x, x.data.map((value, i) => (value + this.shift[i % x.c]) * this.scale[i % x.c]));
    }
  }

  // Arithmetic and reshapes

  /** y[at ..] += x[from ..] M, for a matrix M (rows, columns) that begins at `start` of `weight`. */
  function addProduct(x, from, rows, weight, start, y, at, columns) {
    for (let row = 0; row < rows; row++) {
      const value = x[from + row];
      for (let column = 0; column < columns; column++) {
        y[at + column] += value * weight[start + row * columns + column];
      }
    }
  }

  /** The same matrix (C, C) times each pixel's channels. */
  function mix(x, matrix) {
    const y = array(x.n, x.h, x.w, x.c), {c} = x;
    for (let p = 0; p < x.data.length; p += c) {
      for (let k = 0; k < c; k++) {
        for (let l = 0; l < c; l++) y.data[p + k] += matrix[k * c + l] * x.data[p + l];
      }
    }
    return y;
  }

  /** W^-1 and log|det W| of a matrix (C, C), by Gauss and Jordan, with the largest pivots first. */
  function invert(matrix, size) {
    const rows = Array.from({length: size}, (_, k) =>
      [...matrix.subarray(k * size, (k + 1) * size), ...Array.from({length: size}, (_, l) => Number(k === l))]);
    let logAbsDet = 0;
    for (let k = 0; k < size; k++) {
      let pivot = k;
      for (let row = k; row < size; row++) if (Math.abs(rows[row][k]) > Math.abs(rows[pivot][k])) pivot = row;
      [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
      const top = rows[k][k];
      logAbsDet += Math.log(Math.abs(top));
      rows[k] = rows[k].map(value => value / top);
      for (let row = 0; row < size; row++) {
        if (row === k) continue;
        const factor = rows[row][k];
        rows[row] = rows[row].map((value, l) => value - factor * rows[k][l]);
      }
    }
    return {inverse: Float64Array.from(rows.flatMap(row => row.slice(size))), logAbsDet};
  }

  /** The two halves of the channels. */
  function channels(x) {
    return columns(x, x.c / 2);
  }

  /** The first `size` numbers of each row of channels, and the rest. */
  function columns(x, size) {
    const first = array(x.n, x.h, x.w, size), rest = array(x.n, x.h, x.w, x.c - size);
    for (let p = 0; p < x.n * x.h * x.w; p++) {
      first.data.set(x.data.subarray(p * x.c, p * x.c + size), p * size);
      rest.data.set(x.data.subarray(p * x.c + size, (p + 1) * x.c), p * (x.c - size));
    }
    return [first, rest];
  }

  /** The channels of a, then those of b. */
  function joined(a, b) {
    const x = array(a.n, a.h, a.w, a.c + b.c);
    for (let p = 0; p < a.n * a.h * a.w; p++) {
      x.data.set(a.data.subarray(p * a.c, (p + 1) * a.c), p * x.c);
      x.data.set(b.data.subarray(p * b.c, (p + 1) * b.c), p * x.c + a.c);
    }
    return x;
  }

  /** b as vectors, with the vectors `rest` behind them. */
  function besides(b, rest) {
    return joined(array(b.n, 1, 1, b.h * b.w * b.c, b.data), rest);
  }

  // A whole flow, from data.js

  const KINDS = {ActNorm, AffineCoupling, Chain, Conv, Dense, Flatten, InvConv1x1, Level, NormReLU, ReLU,
                 Sequence, ShiftScale, Squeeze, TransposedConv};

  /** Numbers from base64, float32, little endian. */
  function decode(base64) {
    const text = atob(base64), view = new DataView(new ArrayBuffer(text.length));
    for (let i = 0; i < text.length; i++) view.setUint8(i, text.charCodeAt(i));
    return Float64Array.from({length: text.length / 4}, (_, i) => view.getFloat32(4 * i, true));
  }

  /** The layer that a node of a tree describes, with those below it. */
  function build(node, weights) {
    const params = {}, children = {};
    for (const [name, [start, ...shape]] of Object.entries(node.params || {})) {
      const size = shape.reduce((product, length) => product * length, 1);
      params[name] = {shape, data: weights.subarray(start, start + size)};
    }
    for (const [name, child] of Object.entries(node.children || {})) children[name] = build(child, weights);
    return new KINDS[node.kind](params, children, node);
  }

  /** log p(x) = log N(z; 0, I) + log|det dz/dx|, with z = bijection(x). */
  class Flow {
    constructor({tree, weights}) {
      this.bijection = build(tree, decode(weights));
    }

    /** x from latents z: the inverse, which draws samples. */
    fromLatents(z) {
      return this.bijection.inverse(z);
    }

    latents(x) {
      return this.bijection.forward(x).y;
    }

    /** log p(x) of each sample, in nats. */
    logProb(x) {
      const {y: z, logDet} = this.bijection.forward(x);
      return logDet.map((value, n) => value + logNormal(z, n));
    }
  }

  /** log N(z; 0, I) of sample n. */
  function logNormal(z, n) {
    const size = z.h * z.w * z.c;
    const squares = z.data.subarray(n * size, (n + 1) * size).reduce((sum, value) => sum + value * value, 0);
    return -0.5 * squares - 0.5 * size * Math.log(2 * Math.PI);
  }

  return {array, decode, logNormal, Flow};
})();

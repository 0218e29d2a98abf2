// flow.html, its second half: the digits model, whose inverse draws samples here.
"use strict";

(() => {
  const {byId, shown} = explore;
  const {bins, images, labels, ...model} = window.minglowData.digits; // intensity levels 0 .. bins - 1
  const flow = new glow.Flow(model);
  const DIMS = 64, SAMPLES = 24, FRAMES = 9, COPIES = 8;
  const LEVELS = [[0, 32], [32, 64]]; // which latents left at which level: as minglow's latent_views
  const seeds = {samples: 1, levels: 2};

  // The model

  const vectors = z => glow.array(z.length / DIMS, 1, 1, DIMS, Float64Array.from(z));
  const asImages = x => glow.array(x.length / DIMS, 8, 8, 1, Float64Array.from(x));

  /** Images, one after the other, 64 numbers each, from latents: minglow's flow.from_latents. */
  const sample = z => flow.fromLatents(vectors(z)).data;
  const latents = x => flow.latents(asImages(x)).data;
  const logProb = x => flow.logProb(asImages(x));

  /** Intensity levels 0 .. bins - 1 as real numbers in [-1/2, 1/2]: the middle of each bin. */
  const real = image => Float64Array.from(image, value => (value + 0.5) / bins - 0.5);

  /** The gray level whose cell holds x, as a share of the darkest: minglow's quantize, drawn. */
  const quantize = x => Math.max(0, Math.min(bins - 1, Math.floor((x + 0.5) * bins)));
  const drawn = x => Array.from({length: x.length / DIMS}, (_, i) =>
    Array.from(x.subarray(DIMS * i, DIMS * (i + 1)), value => quantize(value) / (bins - 1)));

  const mixed = (a, b, share) => a.map((value, i) => value + share * (b[i] - value));
  const joined = arrays => Float64Array.from(arrays.flatMap(array => [...array]));
  const shares = Array.from({length: FRAMES}, (_, k) => k / (FRAMES - 1));

  /** Images on the straight line between the latents of two of the digits. */
  function interpolate(from, to, where) {
    const [a, b] = [from, to].map(index => latents(real(images[index])));
    return sample(joined(where.map(share => mixed(a, b, share))));
  }

  /** A digit's latents with a share of each level's replaced by noise: sqrt(1 - s^2) z + s T noise. */
  function resample(index, levelShares, temperature, noise) {
    const z = latents(real(images[index])), copies = noise.length / DIMS, changed = [];
    for (let copy = 0; copy < copies; copy++) {
      LEVELS.forEach(([start, stop], level) => {
        const s = levelShares[level];
        for (let i = start; i < stop; i++) {
          changed.push(Math.sqrt(1 - s * s) * z[i] + s * temperature * noise[copy * DIMS + i]);
        }
      });
    }
    return sample(changed);
  }

  // The pictures

  const number = id => Number(byId(id).value);

  function showSamples() {
    const temperature = number("temperature");
    const x = sample(explore.normals(SAMPLES * DIMS, seeds.samples).map(value => temperature * value));
    byId("temperature-shown").textContent = shown(temperature, 2);
    const mean = logProb(x).reduce((sum, value) => sum + value, 0) / SAMPLES;
    byId("samples-density").textContent = Number.isFinite(mean) ? `${shown(mean, 1)} nats`
      : "not finite, since one has overflowed";
    explore.drawDigits(byId("samples"), drawn(x), 8);
  }

  function showBetween() {
    const [from, to, share] = [number("from"), number("to"), number("share")];
    const x = interpolate(from, to, [share, ...shares]), name = index => `A handwritten ${labels[index]}`;
    byId("share-shown").textContent = `${Math.round(100 * share)} %`;
    explore.drawDigits(byId("start"), drawn(real(images[from])), 1);
    explore.drawDigits(byId("between"), drawn(x.subarray(0, DIMS)), 1);
    explore.drawDigits(byId("end"), drawn(real(images[to])), 1);
    byId("start").setAttribute("aria-label", name(from));
    byId("between").setAttribute("aria-label", `${Math.round(100 * share)} percent of the way`);
    byId("end").setAttribute("aria-label", name(to));
    explore.drawDigits(byId("latent-line"), drawn(x.subarray(DIMS)), FRAMES);
    const pixels = shares.map(part => mixed(real(images[from]), real(images[to]), part));
    explore.drawDigits(byId("pixel-line"), drawn(joined(pixels)), FRAMES);
  }

  function showLevels() {
    const index = number("kept"), levelShares = [number("level-1"), number("level-2")];
    const temperature = number("level-temperature");
    const x = resample(index, levelShares, temperature, explore.normals(COPIES * DIMS, seeds.levels));
    levelShares.forEach((share, level) => { byId(`level-${level + 1}-shown`).textContent = shown(share, 2); });
    byId("level-temperature-shown").textContent = shown(temperature, 2);
    explore.drawDigits(byId("redrawn"), drawn(joined([real(images[index]), x])), COPIES + 1);
  }

  // From the reader

  for (const id of ["from", "to", "kept"]) {
    labels.forEach((label, index) => {
      byId(id).add(new Option(`${label}, example ${1 + index % 2}`, index));
    });
  }
  byId("from").value = 6; // a 3
  byId("to").value = 10; // a 5
  byId("kept").value = 4; // a 2

  const parts = [[showSamples, ["temperature"]], [showBetween, ["from", "to", "share"]],
                 [showLevels, ["kept", "level-1", "level-2", "level-temperature"]]];
  for (const [show, ids] of parts) {
    const soon = explore.eachFrame(show);
    for (const id of ids) byId(id).addEventListener("input", soon);
    explore.onTheme(soon);
    show();
  }
  byId("noise").addEventListener("click", () => { seeds.samples += 1; showSamples(); });
  byId("level-noise").addEventListener("click", () => { seeds.levels += 1; showLevels(); });

  window.minglow = Object.assign(window.minglow || {}, {digits: {
    images, labels,
    sample: z => [...sample(z)], latents: x => [...latents(x)], logProb: x => [...logProb(x)],
    real: index => [...real(images[index])],
    interpolate: (from, to, where) => [...interpolate(from, to, where)],
    resample: (...chosen) => [...resample(...chosen)],
    quantize: x => x.map(quantize),
  }});
})();

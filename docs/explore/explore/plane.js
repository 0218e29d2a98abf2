// flow.html, its first half: a flow of the plane, from latents to data, one layer at a time.
"use strict";

(() => {
  const {byId, color, shown} = explore;
  const HALF = 3.5, SAMPLES = 900, GRID = 12, ALONG = 241; // the view; how many points, lines, points of a line
  const NAMES = {two_moons: "two moons", pinwheel: "pinwheel"};
  const UNDOING = { // what a layer's inverse does
    ActNorm: "actnorm, x = y / scale − shift",
    InvConv1x1: "1×1 convolution, x = W⁻¹ y",
    AffineCoupling: "affine coupling, x₂ = y₂ / scale(x₁) − shift(x₁)",
  };
  const STEP_LAYERS = 3; // actnorm, convolution, coupling

  const flows = {}, state = {name: "two_moons", undone: 24, temperature: 1, seed: 1, probe: [0.8, -0.6]};
  let layers, paths, probePath, played = null;

  const vectors = data => glow.array(data.length / 2, 1, 1, 2, Float64Array.from(data));
  const flow = (name = state.name) => {
    if (!flows[name]) flows[name] = new glow.Flow(window.minglowData[name]);
    return flows[name];
  };

  /** The vectors z and where they are after each layer that is undone: layers.length + 1 arrays. */
  function path(z) {
    const stages = [z];
    for (let k = layers.length - 1; k >= 0; k--) stages.push(layers[k].inverse(stages[stages.length - 1]));
    return stages;
  }

  /** The latents' grid: lines of points, x fixed and then y fixed. */
  function gridLines() {
    const data = [];
    for (const turned of [false, true]) {
      for (let k = 0; k <= GRID; k++) {
        for (let i = 0; i < ALONG; i++) {
          const fixed = 6 * k / GRID - 3, along = 6 * i / (ALONG - 1) - 3;
          data.push(...(turned ? [along, fixed] : [fixed, along]));
        }
      }
    }
    return data;
  }

  // What has to be computed when something changes

  function choose(name) {
    state.name = name;
    layers = flow().bijection.layers.slice(0, -1); // without Flatten, which does nothing to vectors
    byId("undone").max = layers.length;
    state.undone = Math.min(state.undone, layers.length);
    paths = {grid: path(vectors(gridLines()))};
    truth = glow.decode(window.minglowData[name].points);
    sample();
  }
  let truth;

  function sample() {
    const noise = explore.normals(2 * SAMPLES, state.seed);
    paths.samples = path(vectors(noise.map(value => state.temperature * value)));
    probe();
  }

  function probe() {
    probePath = path(vectors(state.probe));
    show();
  }

  /** Where the probe is, and what its density has become, after the layers that are undone. */
  function values() {
    const now = probePath[state.undone], normal = glow.logNormal(probePath[0], 0);
    // The log-determinant of undone layer k, in the direction of data to latents, where its input is stage k.
    const logDets = probePath.slice(1, state.undone + 1)
      .map((stage, k) => layers[layers.length - 1 - k].forward(stage).logDet[0]);
    const sum = logDets.reduce((total, value) => total + value, 0);
    return {z: state.probe, at: [...now.data], normal, layer: logDets[logDets.length - 1], sum,
            density: normal + sum};
  }

  // The pictures

  function drawStage(canvas, position, withTruth) {
    const side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    if (!side) return;
    canvas.width = canvas.height = Math.round(side * ratio);
    const context = canvas.getContext("2d"), unit = canvas.width / (2 * HALF);
    const put = (data, i) => [canvas.width / 2 + unit * data[2 * i], canvas.width / 2 - unit * data[2 * i + 1]];
    const grid = between(paths.grid, position), samples = between(paths.samples, position);

    if (byId("grid").checked) {
      context.strokeStyle = color("line");
      context.globalAlpha = 0.55;
      context.lineWidth = 0.8 * ratio;
      for (let start = 0; start < grid.length / 2; start += ALONG) {
        context.beginPath();
        for (let i = start; i < start + ALONG; i++) context.lineTo(...put(grid, i));
        context.stroke();
      }
      context.globalAlpha = 1;
    }
    if (withTruth) {
      context.strokeStyle = color("text");
      context.globalAlpha = 0.6;
      context.lineWidth = 1.1 * ratio;
      const arm = 2.5 * ratio;
      for (let i = 0; i < truth.length / 2; i++) {
        const [x, y] = put(truth, i);
        context.beginPath();
        context.moveTo(x - arm, y);
        context.lineTo(x + arm, y);
        context.moveTo(x, y - arm);
        context.lineTo(x, y + arm);
        context.stroke();
      }
      context.globalAlpha = 1;
    }
    const first = paths.samples[0].data; // colors say where a point began
    ["first", "second", "third", "fourth"].forEach((name, quadrant) => {
      context.fillStyle = color(name);
      for (let i = 0; i < SAMPLES; i++) {
        if (2 * (first[2 * i] < 0) + (first[2 * i + 1] < 0) !== quadrant) continue;
        const [x, y] = put(samples, i);
        context.beginPath();
        context.arc(x, y, 1.9 * ratio, 0, 2 * Math.PI);
        context.fill();
      }
    });
    if (position > 0 || canvas.id === "moved-points") {
      const [x, y] = put(between(probePath, position), 0);
      context.beginPath();
      context.arc(x, y, 6 * ratio, 0, 2 * Math.PI);
      context.fillStyle = color("text");
      context.strokeStyle = color("page");
      context.lineWidth = 2 * ratio;
      context.fill();
      context.stroke();
    }
  }

  /** Points at a stage, or on the straight way from one stage to the next. */
  function between(stages, position) {
    const before = Math.floor(position), share = position - before, a = stages[before].data;
    if (!share) return a;
    const b = stages[before + 1].data;
    return a.map((value, i) => value + share * (b[i] - value));
  }

  const draw = explore.eachFrame(() => {
    drawStage(byId("latent-points"), 0, false);
    drawStage(byId("moved-points"), played === null ? state.undone : played, byId("truth").checked);
  });

  function show() {
    const now = values(), {undone} = state, layer = layers[layers.length - undone];
    byId("undone").value = undone;
    byId("undone").setAttribute("aria-valuetext", `${undone} of ${layers.length}`);
    byId("undone-shown").textContent = `${undone}/${layers.length}`;
    byId("plane-temperature").value = state.temperature;
    byId("plane-temperature-shown").textContent = shown(state.temperature, 2);
    byId("plane-name").value = state.name;
    const step = Math.ceil((layers.length - undone + 1) / STEP_LAYERS);
    byId("stage").textContent = undone === 0 ? "No layer undone yet: the latents themselves."
      : `Undone last: step ${step}'s ${UNDOING[layer.constructor.name]}.`
        + (undone === layers.length ? " All layers are undone: these are samples." : "");
    ["z1", "z2"].forEach((id, i) => {
      if (byId(id).valueAsNumber !== state.probe[i]) byId(id).value = state.probe[i];
    });
    place(...state.probe);
    byId("probe-at").textContent = `(${now.at.map(value => shown(value, 3)).join(",\u00a0")})`;
    byId("probe-normal").textContent = shown(now.normal, 3);
    byId("probe-layer").textContent = undone ? shown(now.layer, 3) : "no layer yet";
    byId("probe-sum").textContent = shown(now.sum, 3);
    byId("probe-density").textContent = shown(now.density, 3);
    draw();
  }

  // From the reader

  const place = explore.handle(byId("latent-probe"), {
    label: "The probe among the latents", kind: "probe", size: 0.13, step: 0.05, limit: 3.4,
    set(x, y) { state.probe = [x, y]; probe(); },
  });
  ["z1", "z2"].forEach((id, i) => {
    byId(id).addEventListener("input", event => {
      const value = event.target.valueAsNumber;
      if (Math.abs(value) <= 3.4) { state.probe[i] = value; probe(); }
    });
    byId(id).addEventListener("change", event => { event.target.value = state.probe[i]; });
  });
  byId("undone").addEventListener("input", event => { stop(); state.undone = Number(event.target.value); show(); });
  byId("plane-temperature").addEventListener("input", event => {
    state.temperature = Number(event.target.value);
    resample();
  });
  const resample = explore.eachFrame(sample);
  byId("plane-noise").addEventListener("click", () => { state.seed += 1; sample(); });
  byId("plane-name").addEventListener("change", event => { stop(); choose(event.target.value); });
  for (const id of ["truth", "grid"]) byId(id).addEventListener("change", draw);
  for (const [name, text] of Object.entries(NAMES)) byId("plane-name").add(new Option(text, name));

  /** Undo all layers, one after the other; at once for readers who have asked for less motion. */
  function play() {
    const jump = matchMedia("(prefers-reduced-motion: reduce)").matches, each = 700; // milliseconds for a layer
    const start = performance.now();
    const frame = time => {
      if (played === null) return;
      played = Math.min(layers.length, Math.max(0, (time - start) / each));
      if (jump) played = Math.floor(played);
      if (Math.floor(played) !== state.undone) { state.undone = Math.floor(played); show(); }
      draw();
      if (played === layers.length) stop();
      else requestAnimationFrame(frame);
    };
    played = 0;
    state.undone = 0;
    byId("play").textContent = "Stop";
    show();
    requestAnimationFrame(frame);
  }

  function stop() {
    played = null;
    byId("play").textContent = "Play from the latents";
    draw();
  }
  byId("play").addEventListener("click", () => (played === null ? play() : stop()));

  new ResizeObserver(draw).observe(byId("moved-points"));
  explore.onTheme(draw);
  choose(state.name);

  const pairs = x => Array.from({length: x.n}, (_, i) => [x.data[2 * i], x.data[2 * i + 1]]);
  window.minglow = Object.assign(window.minglow || {}, {plane: {
    names: Object.keys(NAMES),
    fromLatents: (name, z) => pairs(flow(name).fromLatents(vectors(z.flat()))),
    latents: (name, x) => pairs(flow(name).latents(vectors(x.flat()))),
    logProb: (name, x) => [...flow(name).logProb(vectors(x.flat()))],
    set(name, undone, z) { stop(); state.undone = undone; state.probe = z; choose(name); },
    values,
  }});
})();

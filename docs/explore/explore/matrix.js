// matrix.html: two columns of W to drag, and what follows from them.
"use strict";

(() => {
  const {byId, shown, svg} = explore;
  const LIMIT = 2.5, STEP = 0.05, REACH = 6; // the grid reaches so far on every side
  const ENTRIES = ["w11", "w12", "w21", "w22"];
  const PRESETS = {
    identity: [[1, 0], [0, 1]],
    rotation: [[Math.cos(Math.PI / 6), -Math.sin(Math.PI / 6)], [Math.sin(Math.PI / 6), Math.cos(Math.PI / 6)]],
    shear: [[1, 0.75], [0, 1]],
    permutation: [[0, 1], [1, 0]],
    singular: [[1, 0.5], [0.5, 0.25]],
  };

  let W = [[1.2, -0.4], [0.3, 0.9]];
  const size = {h: 8, w: 8};

  // What a W is

  const times = ([[a, b], [c, d]], [x, y]) => [a * x + b * y, c * x + d * y];

  /** All that the page says of a matrix and an image's size. */
  function values() {
    const [[a, b], [c, d]] = W;
    const squares = a * a + b * b + c * c + d * d; // of the entries; and of the singular values
    let det = a * d - b * c;
    // minglow's rule, with the condition number in the Frobenius norm: |W| |W^-1|, which is |W|^2 / |det W|
    const invertible = squares / Math.abs(det) < 1 / Number.EPSILON;
    if (!invertible) det = 0; // what is left of it is rounding
    const logAbsDet = Math.log(Math.abs(det));
    // The singular values are (p +- q) / 2; the smaller one is |det| over the larger, without cancellation.
    const largest = (Math.hypot(a + d, b - c) + Math.hypot(a - d, b + c)) / 2;
    return {
      W, det, logAbsDet, orientation: Math.sign(det), area: Math.abs(det),
      condition: invertible ? largest ** 2 / Math.abs(det) : Infinity,
      logDet: size.h * size.w * logAbsDet,
      inverse: invertible ? [[d / det, -b / det], [-c / det, a / det]] : null,
    };
  }

  // The picture

  const picture = byId("plane");
  const still = svg("g", {}, picture), moving = svg("g", {}, picture);
  for (let k = -3; k <= 3; k++) {
    line(still, [k, -3], [k, 3], {stroke: "var(--grid)", "stroke-width": k ? 0.5 : 1.2});
    line(still, [-3, k], [3, k], {stroke: "var(--grid)", "stroke-width": k ? 0.5 : 1.2});
  }
  const polygon = corners => corners.map(([x, y]) => `${x},${-y}`).join(" ");
  const SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1]];
  svg("polygon", {points: polygon(SQUARE), fill: "none", stroke: "var(--line)", "stroke-width": 1.5,
                  "stroke-dasharray": "4 3", "vector-effect": "non-scaling-stroke"}, still);

  const gridLines = [];
  for (let k = -REACH; k <= REACH; k++) {
    for (const [from, to] of [[[k, -REACH], [k, REACH]], [[-REACH, k], [REACH, k]]]) {
      const element = line(moving, from, to, {stroke: "var(--first)", "stroke-width": k ? 0.6 : 1.3,
                                                "stroke-opacity": 0.55});
      gridLines.push({element, from, to});
    }
  }
  const noise = explore.normals(240, 0);
  const points = Array.from({length: 120}, (_, i) => {
    const at = [0.7 * noise[2 * i], 0.7 * noise[2 * i + 1]];
    const quadrant = ["first", "second", "third", "fourth"][2 * (at[0] < 0) + (at[1] < 0)];
    return {at, element: svg("circle", {r: 0.032, style: `fill: var(--${quadrant})`}, moving)};
  });
  const square = svg("polygon", {fill: "var(--area)", stroke: "var(--text)", "stroke-width": 2,
                                 "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke"}, moving);
  const LETTER = [[[0.3, 0.2], [0.3, 0.8]], [[0.3, 0.8], [0.7, 0.8]], [[0.3, 0.52], [0.6, 0.52]]];
  const letter = LETTER.map(([from, to]) => ({
    from, to,
    element: line(moving, from, to, {stroke: "var(--text)", "stroke-width": 4, "stroke-linecap": "round"}),
  }));

  function line(parent, from, to, attributes) {
    const element = svg("line", {"vector-effect": "non-scaling-stroke", ...attributes}, parent);
    draw(element, from, to);
    return element;
  }

  function draw(element, [x1, y1], [x2, y2]) {
    for (const [name, value] of Object.entries({x1, y1: -y1, x2, y2: -y2})) element.setAttribute(name, value);
  }

  const columns = [0, 1].map(k => {
    const kind = ["first", "second"][k], name = ["first", "second"][k];
    const shaft = line(picture, [0, 0], [0, 0], {stroke: `var(--${kind})`, "stroke-width": 3});
    const place = explore.handle(picture, {
      label: `The ${name} column of W: where ${["(1, 0)", "(0, 1)"][k]} goes`, kind, size: 0.12, step: STEP,
      limit: LIMIT,
      set(x, y) {
        const next = W.map(row => row.slice());
        next[0][k] = x;
        next[1][k] = y;
        set(next);
      },
    });
    const text = svg("text", {class: kind, "font-size": 0.2, "aria-hidden": true,
                              "pointer-events": "none", "font-weight": 600}, picture);
    text.textContent = ["column 1", "column 2"][k];
    return {shaft, place, text};
  });

  // From W to the page

  function show() {
    const now = values();
    for (const {element, from, to} of [...gridLines, ...letter]) draw(element, times(W, from), times(W, to));
    for (const {at, element} of points) {
      const [x, y] = times(W, at);
      element.setAttribute("cx", x);
      element.setAttribute("cy", -y);
    }
    square.setAttribute("points", polygon(SQUARE.map(corner => times(W, corner))));
    columns.forEach(({shaft, place, text}, k) => {
      const [x, y] = [W[0][k], W[1][k]];
      draw(shaft, [0, 0], [x, y]);
      place(x, y);
      // The label stands beyond the tip, column 1's to the right of the arrow's way and column 2's to its left.
      const length = Math.hypot(x, y), side = [-1, 1][k];
      const [right, up] = length ? [x / length, y / length] : [1 - k, k];
      const anchor = right - side * up, [least, most] = anchor > 0 ? [-2.9, 1.9] : [-1.9, 2.9];
      text.setAttribute("text-anchor", anchor > 0 ? "start" : "end");
      text.setAttribute("x", Math.max(least, Math.min(most, x + 0.12 * right - 0.16 * side * up)));
      text.setAttribute("y", Math.max(-2.75, Math.min(2.9, 0.07 - y - 0.12 * up - 0.26 * side * right)));
    });
    ENTRIES.forEach((id, i) => {
      const input = byId(id), entry = W[Math.floor(i / 2)][i % 2];
      if (Number(input.value) !== entry || input.value === "") input.value = Number(entry.toFixed(6));
    });

    const singular = now.inverse === null;
    byId("det").textContent = shown(now.det, 4);
    byId("orientation").textContent = singular ? "lost" : now.det > 0 ? "kept (+)" : "reversed (−)";
    byId("log").textContent = shown(now.logAbsDet, 4);
    byId("layer").textContent = shown(now.logDet, 3);
    byId("condition").textContent = now.condition < 1e5 || singular ? shown(now.condition, 3)
      : now.condition.toExponential(3);
    byId("inverse").textContent = singular ? "none"
      : now.inverse.map(row => `(${row.map(entry => shown(entry, 3)).join(",\u00a0")})`).join(" ");
    say(now, singular);
  }

  function say({det, condition}, singular) {
    let head = "This W has an inverse.";
    let tail = det > 0 ? "It keeps orientation: the F can still be read."
      : "It reverses orientation: the F is mirrored, and the determinant is negative.";
    if (singular) {
      head = "No inverse.";
      tail = "The area has collapsed to 0 and log |det W| to −∞: many points share one image. "
        + "minglow raises SingularWeightError.";
    } else if (condition > 100) {
      head = "Nearly singular.";
      tail = `There is an inverse, but it can magnify rounding errors ${shown(condition, 0)} times.`;
    }
    const status = byId("status"), text = `${head} ${tail}`;
    if (status.textContent === text) return; // said once, not at every step of a drag
    const strong = document.createElement("strong");
    strong.textContent = head;
    status.replaceChildren(strong, ` ${tail}`);
    status.classList.toggle("alarm", singular || condition > 100);
  }

  /** Another W, rows first. */
  function set(next) {
    W = next.map(row => row.map(Number));
    show();
  }

  // From the reader to W

  ENTRIES.forEach((id, i) => byId(id).addEventListener("input", event => {
    const entry = event.target.valueAsNumber;
    if (!(Math.abs(entry) <= LIMIT)) return; // empty for the moment, or too large
    const next = W.map(row => row.slice());
    next[Math.floor(i / 2)][i % 2] = entry;
    set(next);
  }));
  ENTRIES.forEach(id => byId(id).addEventListener("change", show)); // what was not taken goes back
  for (const id of ["h", "w"]) {
    byId(id).addEventListener("input", event => {
      const pixels = event.target.valueAsNumber;
      if (Number.isInteger(pixels) && pixels >= 1 && pixels <= 1024) size[id] = pixels;
      show();
    });
    byId(id).addEventListener("change", event => { event.target.value = size[id]; });
  }
  byId("presets").addEventListener("click", event => {
    const name = event.target.dataset.preset;
    if (name) set(PRESETS[name]);
  });

  window.minglow = {matrix: {set, values, resize(h, w) { Object.assign(size, {h, w}); show(); }}};
  show();
})();

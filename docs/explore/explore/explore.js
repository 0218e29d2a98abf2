// What both explorables need: handles to drag, random numbers with a seed, and pictures of digits.
"use strict";

const explore = (() => {
  const byId = id => document.getElementById(id);

  /** A number with so many decimals, a true minus sign, and words of infinity. */
  function shown(value, decimals = 3) {
    if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "none";
    const text = value.toFixed(decimals);
    return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
  }

  /** A color of explore.css, as it is in the light or in the dark. */
  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  /** Draw again when the reader's system turns dark or light. */
  function onTheme(draw) {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  /** The same function, called at most once for each frame. */
  function eachFrame(draw) {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    };
  }

  /** n numbers from N(0, 1), the same for the same seed: mulberry32, then Box and Muller. */
  function normals(n, seed) {
    let state = Math.imul(seed + 1, 0x9e3779b9);
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    return Float64Array.from({length: n}, () =>
      Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
  }

  function svg(name, attributes, parent) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (parent) parent.append(element);
    return element;
  }

  /**
   * A point of an SVG that is dragged by mouse or finger, and moved by the arrow keys when it has the focus.
   *
   * The SVG's y points down, the plane's up. set(x, y) is called with what the reader wants; place(x, y),
   * which is returned, puts the handle there. An arrow key moves by `step`, with Shift by five steps.
   */
  function handle(parent, {label, kind, size, step, limit, set}) {
    const group = svg("g", {class: `handle ${kind}`, tabindex: 0, role: "slider", "aria-label": label,
                            "aria-valuemin": -limit, "aria-valuemax": limit}, parent);
    svg("circle", {class: "reach", r: 2.2 * size}, group);
    svg("circle", {class: "ring", r: 1.6 * size, "stroke-width": size / 3}, group);
    svg("circle", {class: "tip", r: size, "stroke-width": size / 5}, group);
    const at = [0, 0], clamp = value => Math.max(-limit, Math.min(limit, value));
    const snap = value => Number((Math.round(clamp(value) / step) * step).toFixed(6));

    const move = event => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(parent.getScreenCTM().inverse());
      set(snap(point.x), snap(-point.y));
    };
    group.addEventListener("pointerdown", event => {
      group.setPointerCapture(event.pointerId);
      group.focus();
      event.preventDefault();
    });
    // A finger on a handle does not scroll the page. CSS's touch-action would say so, but not of parts of an SVG.
    group.addEventListener("touchstart", event => event.preventDefault(), {passive: false});
    group.addEventListener("pointermove", event => {
      if (group.hasPointerCapture(event.pointerId)) move(event);
    });
    const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
    group.addEventListener("keydown", event => {
      if (!(event.key in ways)) return;
      const [right, up] = ways[event.key], by = (event.shiftKey ? 5 : 1) * step;
      // Kept where it is in the direction that the key does not concern.
      set(right ? snap(at[0] + right * by) : at[0], up ? snap(at[1] + up * by) : at[1]);
      event.preventDefault();
    });
    return (x, y) => {
      at[0] = x;
      at[1] = y;
      group.setAttribute("transform", `translate(${x} ${-y})`);
      group.setAttribute("aria-valuenow", clamp(x));
      group.setAttribute("aria-valuetext", `${shown(x, 2)} to the right, ${shown(y, 2)} up`);
    };
  }

  /** Images of 8 x 8 numbers in 0 .. 1 as ink on paper, `columns` in a row, a pixel between them. */
  function drawDigits(canvas, images, columns) {
    const pitch = 9, lines = Math.ceil(images.length / columns), context = canvas.getContext("2d");
    canvas.width = columns * pitch - 1;
    canvas.height = lines * pitch - 1;
    const [paper, ink] = ["paper", "ink"].map(name => channelsOf(color(name)));
    images.forEach((image, index) => {
      const picture = context.createImageData(8, 8);
      image.forEach((value, pixel) => {
        for (let c = 0; c < 3; c++) picture.data[4 * pixel + c] = paper[c] + value * (ink[c] - paper[c]);
        picture.data[4 * pixel + 3] = 255;
      });
      context.putImageData(picture, (index % columns) * pitch, Math.floor(index / columns) * pitch);
    });
  }

  const channelsOf = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));

  return {byId, color, drawDigits, eachFrame, handle, normals, onTheme, shown, svg};
})();

"use strict";
// The page's playground: both models run here, with the data of play.py in the element #data.
// Functions take one image of 784 zeros and ones, or one latent point; there are no batches.

const SIDE = 28, PIXELS = SIDE * SIDE;
const data = JSON.parse(document.getElementById("data").textContent);

// ---- numbers from base64

function bytes(text) {
  return Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
}

const floats = text => new Float32Array(bytes(text).buffer);

// ---- the models

// Weights are 16-bit multiples of a step per input.
function readModel({latent, encoders, layers}) {
  const read = layers.map(({weights, steps, bias}) =>
    ({weights: new Int16Array(bytes(weights).buffer), steps: floats(steps), bias: floats(bias)}));
  return {latent, encoder: read.slice(0, encoders), decoder: read.slice(encoders)};
}

function forward(layers, input) {
  layers.forEach(({weights, steps, bias}, index) => {
    const output = Float64Array.from(bias), outputs = bias.length;
    steps.forEach((step, i) => {
      const value = input[i] * step;
      if (value === 0) return;
      for (let o = 0, at = i * outputs; o < outputs; o++) output[o] += value * weights[at + o];
    });
    input = index < layers.length - 1 ? output.map(value => Math.max(value, 0)) : output;
  });
  return input;
}

function encode(model, image) {
  const posterior = forward(model.encoder, image);
  return {mean: posterior.slice(0, model.latent), logVariance: posterior.slice(model.latent)};
}

const decode = (model, point) => forward(model.decoder, point);
const probabilities = logits => logits.map(logit => 1 / (1 + Math.exp(-logit)));

// KL, and reconstruction at the posterior mean, in nats, as anomaly_scores in vae/inference.py.
function scores(model, image) {
  const {mean, logVariance} = encode(model, image), logits = decode(model, mean);
  let kl = 0, reconstruction = 0;
  mean.forEach((value, index) => {
    kl += (value * value + Math.exp(logVariance[index]) - 1 - logVariance[index]) / 2;
  });
  logits.forEach((logit, index) => {
    reconstruction += Math.max(logit, 0) - logit * image[index] + Math.log1p(Math.exp(-Math.abs(logit)));
  });
  return {kl, reconstruction, negative_elbo: kl + reconstruction, mean, logits};
}

// The percentage of the training images that score no more.
function percentile(name, score) {
  const known = quantiles[name];
  return 100 * known.filter(value => value <= score).length / known.length;
}

// The place of a percentage on a scale from 0.1 to 99.9: log odds, scaled to 0 to 1.
function onScale(percentage) {
  const share = Math.min(Math.max(percentage / 100, .001), .999);
  return .5 + Math.log(share / (1 - share)) / (2 * Math.log(999));
}

function anomalousBy(found) {
  const {kl, negative_elbo, reconstruction} = data.scores.limits;
  return [["KL", found.kl > kl], ["negative ELBO", found.negative_elbo > negative_elbo],
          ["reconstruction", found.reconstruction < reconstruction]].filter(pair => pair[1]).map(pair => pair[0]);
}

const models = data.models && {"20d": readModel(data.models["20d"]), "2d": readModel(data.models["2d"])};
const quantiles = Object.fromEntries(Object.entries(data.scores.quantiles).map(([name, text]) => [name, floats(text)]));
const axis = floats(data.plane.axis), means = floats(data.plane.means), labels = data.plane.labels && bytes(data.plane.labels);
const bits = bytes(data.examples);
const examples = Array.from({length: bits.length * 8 / PIXELS}, (_, image) =>
  Float64Array.from({length: PIXELS}, (_, pixel) => bits[(image * PIXELS + pixel) >> 3] >> (7 - pixel % 8) & 1));

// ---- elements

// Makes an element with attributes and children; a text is a child, too.
function make(tag, attributes = {}, ...children) {
  const element = document.createElementNS(
    ["svg", "path", "line", "text"].includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const canvas = (side, label, more = {}) =>
  make("canvas", {width: side, height: side, role: "img", "aria-label": label, ...more});

function button(label, action) {
  const element = make("button", {type: "button"}, label);
  element.addEventListener("click", action);
  return element;
}

// Shows gray values of 0 to 1 on a canvas of 28 x 28 pixels.
function showDigit(place, gray) {
  const context = place.getContext("2d"), pixels = context.createImageData(SIDE, SIDE);
  gray.forEach((value, index) => pixels.data.set([255 * value, 255 * value, 255 * value, 255], 4 * index));
  context.putImageData(pixels, 0, 0);
}

// The place of a pointer on a canvas, from 0 to 1 in both directions.
function place(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const share = (at, from, length) => Math.min(Math.max((at - from) / length, 0), 1 - 1e-6);
  return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

// ---- the latent plane

// The most frequent label among the 25 nearest test images.
function nearestLabel(x, y) {
  const distances = Array.from(labels, (label, index) => [(means[2 * index] - x) ** 2 + (means[2 * index + 1] - y) ** 2, label]);
  const votes = new Array(10).fill(0);
  distances.sort((a, b) => a[0] - b[0]).slice(0, 25).forEach(([, label]) => votes[label]++);
  return votes.indexOf(Math.max(...votes));
}

function plane(box) {
  const size = axis.length, reach = 1.05 * means.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // The plane after training, without the margin of plots/manifold.png; and the boundaries.
  const images = {manifold: make("img", {src: `data:image/png;base64,${data.training.manifold.at(-1)}`})};
  for (const image of document.querySelectorAll("img[data-name=manifold-regions]")) images[image.dataset.name] = image;
  const map = canvas(size, "Latent plane: arrow keys move the point, with Shift in larger steps", {tabindex: 0, role: "application", class: "map"});
  const digit = canvas(SIDE, "The decoded image", {class: "digit"});
  const said = make("p", {role: "status"});
  const legend = make("p", {class: "legend"}, ...data.plane.colors.map((color, digit) => {
    const mark = make("b", {}, String(digit));
    mark.style.color = `rgb(${color})`;
    return mark;
  }));
  const views = {"decoded images": "manifold", ...(labels && {"boundaries": "manifold-regions"}), "test images": null};
  let view = "decoded images", point = [0, 0];

  // A share of the canvas as a latent coordinate, and back.
  const coordinate = share => views[view] ? axis[Math.floor(share * size)] : (2 * share - 1) * reach;
  const share = value => views[view] ? axis.filter(each => each < value).length / size : (value / reach + 1) / 2;

  const drawings = {};
  function background() {
    if (drawings[view]) return drawings[view];
    const layer = canvas(size, ""), context = layer.getContext("2d");
    if (views[view]) {
      const image = images[views[view]];
      if (image.naturalWidth) context.drawImage(image, 0, 0, size, size);
      else return layer;
    } else {
      for (let index = 0; 2 * index < means.length; index++) {
        context.fillStyle = `rgb(${data.plane.colors[labels ? labels[index] : 0]})`;
        context.fillRect(size * share(means[2 * index]) - 1, size * share(means[2 * index + 1]) - 1, 2, 2);
      }
    }
    return drawings[view] = layer;
  }

  function show(x, y) {
    point = [x, y];
    showDigit(digit, probabilities(decode(models["2d"], point)));
    const [left, top] = point.map(value => size * Math.min(Math.max(share(value), .02), .98));
    const [least, most] = views[view] ? [axis[0], axis[size - 1]] : [-reach, reach];
    const outside = point.some(value => value < least || value > most), name = `(${x.toFixed(2)}, ${y.toFixed(2)})`;
    const beyond = outside ? ", beyond the edge of the plane that is shown" : "";
    const near = labels ? `; the nearest test images are of label ${nearestLabel(x, y)}` : "";
    said.textContent = `${name}${beyond}${near}`;
    digit.setAttribute("aria-label", `The decoded image${near}`);
    const context = map.getContext("2d");
    legend.hidden = Boolean(views[view]) || !labels;
    context.clearRect(0, 0, size, size);
    context.drawImage(background(), 0, 0);
    Object.assign(context, {font: "bold 20px sans-serif", textBaseline: "middle", textAlign: left < size / 2 ? "left" : "right"});
    for (const [color, width] of [["#000", 5], ["#ffb000", 2]]) {
      context.beginPath();
      context.arc(left, top, 9, 0, 7);
      Object.assign(context, {strokeStyle: color, fillStyle: color, lineWidth: width});
      context.stroke();
      // The coordinates of a point beyond the edge.
      if (outside) context[width > 2 ? "strokeText" : "fillText"](name, left + (left < size / 2 ? 16 : -16), top);
    }
  }

  const follow = event => show(...place(event).map(coordinate));
  map.addEventListener("pointermove", follow);
  map.addEventListener("pointerdown", follow);
  map.addEventListener("keydown", event => {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const step = (event.shiftKey ? 20 : 4) / size;
    show(...point.map((value, which) => coordinate(Math.min(Math.max(share(value) + step * ARROWS[event.key][which], 0), 1 - 1e-6))));
  });
  const choice = make("fieldset", {}, make("legend", {}, "Show"));
  for (const name in views) {
    const option = make("input", {type: "radio", name: "view", ...(name === view ? {checked: ""} : {})});
    option.addEventListener("change", () => { view = name; show(...point); });
    choice.append(make("label", {}, option, ` ${name}`));
  }
  box.append(make("div", {}, choice, map, legend), make("div", {}, digit, said));
  const ready = () => show(...point);
  Object.values(images).forEach(image => image.complete || image.addEventListener("load", ready));
  ready();
  return show;
}

// ---- draw a digit

function drawing(box, showOnPlane) {
  const image = new Float64Array(PIXELS);
  const sheet = canvas(SIDE, "Sheet of 28 x 28 pixels: arrow keys move the pen, the space bar draws", {tabindex: 0, role: "application", class: "sheet"});
  const [deep, flat] = Object.values(models).map(({latent}) => canvas(SIDE, `Reconstruction by the model with ${latent} latent dimensions`, {class: "digit"}));
  const verdict = make("p", {role: "status"}), rows = make("tbody");
  let pen = [14, 14], last = null;

  function judge() {
    showDigit(sheet, image);
    const found = scores(models["20d"], image), onPlane = scores(models["2d"], image);
    showDigit(deep, probabilities(found.logits));
    showDigit(flat, probabilities(onPlane.logits));
    const by = anomalousBy(found);
    verdict.textContent = by.length ? `Anomalous by ${by.join(", ")}.` : `Ordinary: by no score among the strangest ${data.scores.strangest}\u00a0%.`;
    rows.replaceChildren(...[["KL", "kl"], ["reconstruction", "reconstruction"], ["negative ELBO", "negative_elbo"]].map(([label, name]) => {
      const share = percentile(name, found[name]), mark = make("b");
      mark.style.left = `${100 * onScale(share)}%`;
      return make("tr", {}, make("td", {}, label), make("td", {}, found[name].toFixed(2)), make("td", {}, share.toFixed(1)),
        make("td", {}, make("div", {class: "scale"}, mark)));
    }));
    showOnPlane(...onPlane.mean);
  }

  // Draws a line with a pen of about two pixels.
  function stroke([x0, y0], [x1, y1]) {
    const steps = Math.ceil(4 * Math.hypot(x1 - x0, y1 - y0)) || 1;
    for (let step = 0; step <= steps; step++) {
      const x = x0 + (x1 - x0) * step / steps, y = y0 + (y1 - y0) * step / steps;
      for (let row = 0; row < SIDE; row++) for (let column = 0; column < SIDE; column++)
        if (Math.hypot(column + .5 - x, row + .5 - y) < 1.2) image[row * SIDE + column] = 1;
    }
    judge();
  }

  const at = event => place(event).map(share => share * SIDE);
  sheet.addEventListener("pointerdown", event => {
    sheet.setPointerCapture(event.pointerId);
    stroke(last = at(event), last);
  });
  sheet.addEventListener("pointermove", event => {
    if (!event.buttons || !last) return;
    const now = at(event);
    stroke(last, now);
    last = now;
  });
  sheet.addEventListener("pointerup", () => { last = null; });
  sheet.addEventListener("keydown", event => {
    if (event.key === " ") stroke(pen, pen);
    else if (event.key in ARROWS) {
      pen = pen.map((value, which) => Math.min(Math.max(value + ARROWS[event.key][which], .5), SIDE - .5));
      showDigit(sheet, image);
      const context = sheet.getContext("2d");
      context.fillStyle = "#ffb000";
      context.fillRect(Math.floor(pen[0]), Math.floor(pen[1]), 1, 1);
    } else return;
    event.preventDefault();
  });
  const put = values => { image.set(values); judge(); };
  const buttons = make("p", {}, button("Clear", () => put(new Float64Array(PIXELS))),
    ...examples.map((example, index) => button(`Example ${index + 1}`, () => put(example))));
  const name = `${models["20d"].latent}-d model`, heads = [name, "nats", "% of the training images that score no more"];
  const scale = make("div", {class: "scale"}, ...[.1, 1, 10, 50, 90, 99, 99.9].map(percentage => {
    const label = make("span", {}, String(percentage));
    label.style.left = `${100 * onScale(percentage)}%`;
    return label;
  }));
  box.append(make("div", {}, sheet, buttons),
    make("div", {}, make("div", {class: "pair"}, make("figure", {}, deep, make("figcaption", {}, `by the ${name}`)),
      make("figure", {}, flat, make("figcaption", {}, "by the 2-d model"))), verdict,
      make("div", {class: "wide", tabindex: 0}, make("table", {}, make("thead", {}, make("tr", {}, ...heads.map(head => make("th", {}, head)), make("th", {}, scale))), rows))));
  put(examples[0]);
}

// ---- training in time

const LINES = {train_loss: "#1f77b4", test_loss: "#ff7f0e"};

function chart(name) {
  const {epoch, ...losses} = data.losses[name], last = epoch[epoch.length - 1];
  const all = Object.values(losses).flat(), low = Math.min(...all), high = Math.max(...all, low + 1e-9);
  const x = value => 10 + 280 * value / last, y = value => 110 - 90 * (value - low) / (high - low);
  const now = make("line", {y1: 15, y2: 115, stroke: "currentColor", "stroke-dasharray": "3 3"});
  const said = make("text", {x: 10, y: 12, fill: "currentColor", "font-size": 11});
  const element = make("svg", {viewBox: "0 0 300 120", role: "img", "aria-label": `Losses of the ${name} model by epoch`}, now, said);
  for (const [key, color] of Object.entries(LINES)) {
    const points = epoch.map((value, index) => `${x(value)} ${y(losses[key][index])}`).join("L");
    element.append(make("path", {d: `M${points}${epoch.length > 1 ? "" : "z"}`, fill: "none", stroke: color, "stroke-width": 2, "stroke-linecap": "round"}));
  }
  return {element, show(passed) {
    now.setAttribute("x1", x(passed));
    now.setAttribute("x2", x(passed));
    const ended = epoch.filter(value => value <= passed).length;
    said.textContent = ended ? `${name}, epoch ${epoch[ended - 1]}: train ${losses.train_loss[ended - 1].toFixed(2)}, `
      + `test ${losses.test_loss[ended - 1].toFixed(2)} nats` : `${name}: no epoch has ended`;
  }};
}

function training(box) {
  const {epochs, reconstructions, manifold} = data.training;
  const charts = ["20d", "2d"].map(chart);
  const strip = make("img", {class: "strip", alt: "Reconstructions of the images by the first model"});
  const grid = make("img", {class: "grid", alt: "Images decoded from the latent plane"});
  const slider = make("input", {type: "range", min: 0, max: epochs.length - 1, "aria-label": "Moment of the training"});
  const said = make("output", {});
  function show(moment) {
    slider.value = moment;
    said.textContent = epochs[moment] ? `after ${epochs[moment].toFixed(2)} epochs` : "before training";
    slider.setAttribute("aria-valuetext", said.textContent);
    strip.src = `data:image/png;base64,${reconstructions[moment]}`;
    grid.src = `data:image/png;base64,${manifold[moment]}`;
    charts.forEach(each => each.show(epochs[moment]));
  }
  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  const play = button("Play", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    let moment = +slider.value === epochs.length - 1 ? 0 : +slider.value;
    timer = setInterval(() => { show(moment++); if (moment === epochs.length) stop(); }, 250);
  });
  slider.addEventListener("input", () => { stop(); show(+slider.value); });
  box.append(make("div", {}, make("p", {class: "row"}, play, slider, said), strip, ...charts.map(each => each.element)), make("div", {}, grid));
  show(epochs.length - 1);
}

// For tests.
window.vae = {models, scores};

const boxes = Object.fromEntries(["training", "plane", "draw"].map(name => [name, document.getElementById(name)]));
if (models) drawing(boxes.draw, plane(boxes.plane));
training(boxes.training);
Object.values(boxes).forEach(box => { if (box) box.hidden = false; });

// Moves the sliders of a page where no kernel runs: each combination of their stops is a stored picture.
"use strict";

function explore(box) {
  const { frames, words, texts } = JSON.parse(box.dataset.explore);
  const image = box.querySelector("img");
  const printed = box.querySelector("pre");
  const inputs = [...box.querySelectorAll("input")];
  const labels = inputs.map((input) => JSON.parse(input.dataset.labels));
  const loaded = new Map();
  let wanted;

  const place = () => inputs.reduce((sum, input, i) => sum * labels[i].length + Number(input.value), 0);

  // A picture is swapped once it is decoded, so that none is ever missing.
  async function load(address) {
    if (!loaded.has(address)) {
      const picture = new Image();
      picture.src = address;
      loaded.set(address, picture.decode().then(() => picture));
    }
    return loaded.get(address);
  }

  async function show() {
    inputs.forEach((input, i) => {
      const label = labels[i][input.value];
      input.setAttribute("aria-valuetext", label);
      input.parentElement.querySelector(".value").textContent = label;
    });
    const now = (wanted = place());
    const picture = await load(frames[now]);
    if (now !== wanted) return; // the slider has moved on
    image.src = picture.src;
    image.alt = `${image.dataset.label} Here: ${words[now]}.`;
    if (printed) printed.textContent = texts[now];
  }

  inputs.forEach((input) => input.addEventListener("input", show));
  box.querySelector(".controls").hidden = false;
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      frames.forEach(load);
    }
  }).observe(box);
}

// What is wider than the page can be scrolled by key, too.
function reach(wide) {
  if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".explore").forEach(explore);
  document.querySelectorAll(".formula, .output.text_html, .course-map").forEach(reach);
});

// The part of WCAG 2.2 AA that a script can see, for `driver.execute_script`: returns a line for each problem.
const problems = [];
const where = (element) => element.outerHTML.replace(/\s+/g, " ").slice(0, 90);
const report = (element, problem) => problems.push(`${problem}: ${where(element)}`);
const all = (selector) => [...document.querySelectorAll(selector)];
const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
const byId = (ids) => (ids || "").split(/\s+/).map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
const name = (element) =>
  [element.getAttribute("aria-label"), byId(element.getAttribute("aria-labelledby")), element.getAttribute("alt"),
   element.getAttribute("title"), ...[...(element.labels ?? [])].map((label) => label.textContent)].join("").trim();

if (!document.documentElement.lang) report(document.documentElement, "no language");
if (!document.title.trim()) report(document.head, "no title");
if (all("main, [role=main]").length !== 1) report(document.body, "not one main part");
if (all("h1").filter(shown).length !== 1) report(document.body, "not one heading of the first level");

let level = 0;
for (const heading of all("h1, h2, h3, h4, h5, h6").filter(shown)) {
  const own = Number(heading.tagName[1]);
  if (own > level + 1) report(heading, `a heading of level ${own} below one of level ${level}`);
  level = own;
}

for (const image of all("img, svg[role=img], canvas, [role=img]").filter(shown))
  if (!name(image) && !image.querySelector("title") && image.getAttribute("aria-hidden") !== "true")
    report(image, "no alternative text");
for (const control of all("input:not([type=hidden]), select, textarea").filter(shown))
  if (!name(control)) report(control, "no label");
for (const control of all("button, a[href], [role=button], [role=slider], summary").filter(shown))
  if (!name(control) && !control.textContent.trim() && !control.querySelector("img[alt]:not([alt=''])"))
    report(control, "no name");
for (const table of all("table").filter(shown)) {
  if (!table.caption && !name(table)) report(table, "no caption");
  if (!table.querySelector("th")) report(table, "no header cells");
}

const ids = all("[id]").map((element) => element.id);
for (const element of all("[id]")) if (ids.filter((id) => id === element.id).length > 1) report(element, "id used twice");

for (const element of all("*").filter(shown)) {
  const scrolls = ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  if (!scrolls || element.scrollWidth <= element.clientWidth + 1) continue;
  if (element.tabIndex < 0 && !element.querySelector("a, button, input, [tabindex]"))
    report(element, "scrolls, and the keyboard does not reach it");
  else if (element.tabIndex >= 0 && !name(element)) report(element, "scrolls, and has no name");
}

const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
};
const over = (top, below) => [0, 1, 2].map((c) => top[3] * top[c] + (1 - top[3]) * below[c]);
const background = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark")
    && matchMedia("(prefers-color-scheme: dark)").matches;
  return layers.reverse().reduce((below, layer) => over(layer, below), dark ? [18, 18, 18] : [255, 255, 255]);
};
const luminance = (color) => {
  const [red, green, blue] = color.map((value) =>
    value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const seen = new Set();
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.textContent.trim() || seen.has(element) || !shown(element)) continue;
  if (["SCRIPT", "STYLE", "TITLE", "DESC"].includes(element.tagName) || element.closest(":disabled")) continue;
  seen.add(element);
  const style = getComputedStyle(element);
  const below = background(element);
  const inSvg = element.namespaceURI.endsWith("svg");
  const [light, dark] = [over(rgba(inSvg ? style.fill : style.color), below), below].map(luminance).sort((a, b) => b - a);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < (large ? 3 : 4.5)) report(element, `contrast ${contrast.toFixed(2)}`);
}
return problems;

/** Dark, light, or as the system says. */
const KEY = "ringfabric.theme";
const THEMES = ["auto", "light", "dark"];

/** The theme that was chosen. */
export function theme() {
  const kept = localStorage.getItem(KEY);
  return THEMES.includes(kept) ? kept : "auto";
}

/** Shows the page in the theme that was chosen. */
export function applyTheme() {
  document.documentElement.dataset.theme = theme();
  dispatchEvent(new Event("theme"));
}

/** Chooses a theme. */
export function chooseTheme(name) {
  localStorage.setItem(KEY, name);
  applyTheme();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));

/** Lines of the picture: their width and motion follow frames a second, their colour the mode. */
import { html } from "./vendor/preact.js";

const WIDTH_IDLE = 1;
const WIDTH_MAX = 7;
/** Classes of speed; an animation that changed its length at each reading would jump. */
const SPEEDS = 6;

/** How wide a line is: by the order of magnitude, so that 100 and 10 million frames a second both can be seen. */
export function widthOf(frames) {
  if (frames < 0.5) return WIDTH_IDLE;
  return Math.min(WIDTH_MAX, WIDTH_IDLE + 0.5 + Math.round(Math.log10(frames + 1) * 3) / 4);
}

/** How fast its dashes move: 0, not at all. */
function speedOf(frames) {
  return frames < 0.5 ? 0 : Math.max(1, Math.min(SPEEDS, Math.round(Math.log10(frames + 1))));
}

/** A line along which `frames` a second go in the direction in which it is drawn. */
export function Flow({ d, frames, kind = "none", quiet = false }) {
  const speed = speedOf(frames);
  const width = widthOf(frames);
  return html`
    <g class=${`flow ${kind} ${speed === 0 ? "idle" : ""}`}>
      <path d=${d} style=${{ strokeWidth: width }} class="bed" />
      ${speed > 0 && html`
        <path d=${d} style=${{ strokeWidth: Math.max(1.25, width * 0.55) }} class=${`dash s${speed} ${
          quiet ? "quiet" : ""
        }`} />
      `}
    </g>
  `;
}

/** Plots of the last minutes: uPlot, in the page's colours, with the newest figures beside them. */
import { html, useEffect, useRef } from "./vendor/preact.js";
import uPlot from "./vendor/uplot.js";

const HEIGHT = 132;
/** A plot looks back at least as far. */
const SECONDS_MIN = 60;
const FONT = "11px system-ui, sans-serif";

/** A colour of the style sheet as the canvas takes it, in the theme that is shown. */
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/** Up to the next power of ten, from 1 on. */
const logRange = (_, __, max) => [1, 10 ** Math.ceil(Math.log10(Math.max(max ?? 0, 100) * 1.05))];

/** A line at each of them, and none in between. */
const powersOfTen = (_, __, ___, max) => Array.from({ length: Math.log10(max) + 1 }, (_, i) => 10 ** i);

function options(width, series, { format, least = 10, isLog }) {
  const [ink, grid] = [colour("--muted"), colour("--rule")];
  const axis = { stroke: ink, font: FONT, ticks: { show: false }, grid: { stroke: grid, width: 1 } };
  const times = (_, at) => at.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB"));
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 5 }, drag: { x: false, y: false } },
    padding: [8, 22, 0, 0],
    scales: {
      x: { time: true, range: (_, min, max) => [Math.min(min, max - SECONDS_MIN), max] },
      y: isLog ? { distr: 3, range: logRange } : { range: (_, __, max) => [0, Math.max(max * 1.1, least)] },
    },
    axes: [
      { ...axis, size: 22, space: 80, values: times, grid: { show: false } },
      {
        ...axis,
        ...(isLog ? { splits: powersOfTen, filter: (_, ticks) => ticks } : {}),
        size: 72,
        space: 34,
        gap: 6,
        values: (_, ticks) => ticks.map((n) => format(n)),
      },
    ],
    series: [
      {},
      ...series.map(({ name, tone, dash }) => ({
        label: name,
        stroke: colour(tone),
        width: 1.5,
        points: { show: false },
        spanGaps: false,
        ...(dash ? { dash } : {}),
      })),
    ],
  };
}

/**
 * A plot. `series`: {name, tone, dash?, values, now}; `at`: times in milliseconds; `format` writes a value; `least`: what the
 * axis goes up to at least; `isLog`: orders of magnitude are as far apart. Screen readers are told the newest figures.
 */
export function Plot({ title, at, series, format, least, isLog }) {
  const place = useRef(null);
  const plot = useRef(undefined);
  const shape = `${series.map(({ name }) => name).join()} ${document.documentElement.dataset.theme}`;
  const data = useRef(undefined);
  data.current = [at.map((ms) => ms / 1000), ...series.map(({ values }) => values)];
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      const width = Math.max(120, place.current.clientWidth);
      plot.current = new uPlot(options(width, series, { format, least, isLog }), data.current, place.current);
    };
    make();
    const size = new ResizeObserver(() => {
      const width = Math.max(120, place.current?.clientWidth ?? 0);
      if (plot.current && plot.current.width !== width) plot.current.setSize({ width, height: HEIGHT });
    });
    size.observe(place.current);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    return () => {
      size.disconnect();
      scheme.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data.current), [at.at(-1), at.length, shape]);
  const spoken = series.map(({ name, now }) => `${name} ${now}`).join(", ");
  return html`
    <figure class="plot">
      <figcaption>${title}
        <ul>${series.map(({ name, tone, dash, now }) =>
          html`
            <li><i class=${dash ? "dashed" : ""} style=${{ color: `var(${tone})` }}></i>${name} <b>${now}</b></li>
          `
        )}
        </ul>
      </figcaption>
      <div ref=${place} role="img" aria-label=${`${title}: ${spoken}`}></div>
    </figure>
  `;
}

/** Rates of counters over time, as a series: the sum of `names` a second, times `factor`. */
export function rateSeries(samples, names, factor = 1) {
  return samples.map(({ seconds, delta }) =>
    seconds === undefined ? null : names.reduce((sum, name) => sum + (delta[name] ?? 0), 0) / seconds * factor
  );
}

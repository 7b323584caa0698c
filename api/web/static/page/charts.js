// Pictures, each with a sentence that says the same; the tables beside them have the numbers.

import { useEffect, useRef } from "preact/hooks";
import { html } from "fallow/html.js";
import { clock, gpus, price } from "fallow/words.js";

const WIDTH = 120;
const HEIGHT = 28;

// Closing prices as a line without axes; `values` may have nulls where nothing traded.
export function Sparkline({ values, label }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return html`<span class="quiet">no history</span>`;
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  let path = "";
  let isPen = false;
  values.forEach((value, index) => {
    if (value === null) {
      isPen = false;
      return;
    }
    const x = (index / (values.length - 1)) * (WIDTH - 2) + 1;
    const y = HEIGHT - 2 - ((value - low) / span) * (HEIGHT - 4);
    path += `${isPen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    isPen = true;
  });
  return html`<svg class="spark" role="img" aria-label=${label} viewBox="0 0 ${WIDTH} ${HEIGHT}">
    <path d=${path} />
  </svg>`;
}

// Leased and idle GPUs as parts of what is on offer, and a mark where demand ends.
export function CapacityBar({ leased, idle, demanded }) {
  const whole = Math.max(leased + idle, demanded, 1);
  const at = (number) => ((number / whole) * 100).toFixed(2);
  const label = `${gpus(leased)} leased, ${idle} idle, ${demanded} demanded`;
  return html`<svg class="bar" role="img" aria-label=${label} viewBox="0 0 100 10" preserveAspectRatio="none">
    <title>${label}</title>
    <rect class="whole" width="100" height="10" />
    <rect class="leased" width=${at(leased)} height="10" />
    <rect class="idle" x=${at(leased)} width=${at(idle)} height="10" />
    <rect class="demanded" x=${Math.max(0, at(demanded) - 0.8)} width="0.8" height="10" />
  </svg>`;
}

// A custom property as a canvas understands it: light-dark() is only worked out where it is used.
function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// Draw again when the theme changes: a canvas has no light-dark() of its own.
function useDrawn(draw, inputs) {
  const holder = useRef(null);
  useEffect(() => {
    let undo = draw(holder.current);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const again = () => {
      undo();
      undo = draw(holder.current);
    };
    scheme.addEventListener("change", again);
    return () => {
      scheme.removeEventListener("change", again);
      undo();
    };
  }, inputs);
  return holder;
}

// Demand falls, supply rises; where they cross is what this tick cleared.
export function CurveChart({ curve, tick }) {
  const words = tick
    ? `Tick ${tick.tick} at ${clock(tick.cleared_at)} UTC: ${gpus(tick.demanded_gpus)} demanded, ` +
      `${tick.offered_gpus} offered, ${tick.cleared_gpus} cleared at ${price(tick.price)}.`
    : "Demand and supply of this tick.";
  const holder = useDrawn(
    (element) => {
      const plot = drawCurve(element, curve, tick);
      const size = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: 260 }));
      size.observe(element);
      return () => {
        size.disconnect();
        plot.destroy();
      };
    },
    [curve, tick],
  );
  return html`<figure>
    <div ref=${holder} class="chart" role="img" aria-label=${words}></div>
    <figcaption>${words}</figcaption>
  </figure>`;
}

const steps = (levels) =>
  levels.length === 0
    ? [[0], [null]]
    : [
        [0, ...levels.map(([, cumulative]) => cumulative)],
        [Number(levels[0][0]), ...levels.map(([level]) => Number(level))],
      ];

function drawCurve(element, curve, tick) {
  const { uPlot } = window;
  const stepped = uPlot.paths.stepped({ align: -1 });
  const text = colour("--ink-quiet");
  const axis = { stroke: text, grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const line = (label, name, dash) => ({
    label, dash, stroke: colour(name), width: 2, paths: stepped, spanGaps: true, points: { show: false },
  });
  const crossing = (plot) => {
    if (!tick || tick.price === null) return;
    const { ctx, bbox } = plot;
    const x = plot.valToPos(tick.cleared_gpus, "x", true);
    const y = plot.valToPos(Number(tick.price), "y", true);
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--ink");
    ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(x, y);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(x, y, 5 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.fill();
    ctx.font = `600 ${13 * devicePixelRatio}px system-ui, sans-serif`;
    const isLeft = x > bbox.left + bbox.width / 2;
    ctx.textAlign = isLeft ? "right" : "left";
    ctx.fillText(`${gpus(tick.cleared_gpus)} at ${price(tick.price)}`, x + (isLeft ? -10 : 10) * devicePixelRatio, y + 18 * devicePixelRatio);
    ctx.restore();
  };
  return new uPlot(
    {
      width: element.clientWidth || 300,
      height: 260,
      scales: { x: { time: false } },
      axes: [
        { ...axis, label: "GPUs", size: 44 },
        { ...axis, label: "$ per GPU-hour", size: 64, values: (_, at) => at.map((value) => `$${value}`) },
      ],
      series: [{ label: "GPUs" }, line("demand", "--demand"), line("supply", "--supply", [6, 4])],
      hooks: { draw: [crossing] },
      cursor: { drag: { x: false, y: false } },
    },
    uPlot.join([steps(curve.demand), steps(curve.supply)]),
    element,
  );
}

// The clearing price as a step line, GPUs cleared as columns below, limits as dotted lines.
export function PriceChart({ candles, limits, words }) {
  const drawn = useRef(null);
  const shown = useRef({ candles, limits });
  shown.current = { candles, limits };
  const holder = useDrawn((element) => {
    let chart = null;
    let isGone = false;
    import("lightweight-charts").then((library) => {
      if (isGone) return;
      chart = makePrices(library, element);
      drawn.current = chart;
      chart.show(shown.current);
    });
    return () => {
      isGone = true;
      drawn.current = null;
      chart?.remove();
    };
  }, []);
  useEffect(() => drawn.current?.show({ candles, limits }), [candles, limits.join()]);
  return html`<figure>
    <div ref=${holder} class="chart price-chart" role="img" aria-label=${words}></div>
    <figcaption>${words}</figcaption>
  </figure>`;
}

function makePrices({ createChart, HistogramSeries, LineSeries, LineStyle, LineType }, element) {
  const chart = createChart(element, {
    autoSize: true,
    layout: { attributionLogo: false, background: { color: "transparent" }, textColor: colour("--ink-quiet") },
    grid: { vertLines: { visible: false }, horzLines: { color: colour("--line") } },
    timeScale: { timeVisible: true, lockVisibleTimeRangeOnResize: true },
  });
  const columns = chart.addSeries(HistogramSeries, {
    color: colour("--idle"), priceFormat: { type: "volume" }, priceScaleId: "gpus", lastValueVisible: false,
    priceLineVisible: false,
  });
  chart.priceScale("gpus").applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } });
  let wanted = [];
  const line = chart.addSeries(LineSeries, {
    color: colour("--demand"), lineWidth: 2, lineType: LineType.WithSteps,
    priceFormat: { type: "price", precision: 4, minMove: 0.0001 },
    // A limit belongs into the picture unless it would flatten the prices.
    autoscaleInfoProvider: (original) => {
      const found = original();
      if (!found?.priceRange) return found;
      const near = wanted.filter((limit) => limit < 1.5 * found.priceRange.maxValue);
      const { minValue, maxValue } = found.priceRange;
      return { ...found, priceRange: { minValue: Math.min(minValue, ...near), maxValue: Math.max(maxValue, ...near) } };
    },
  });
  let marks = [];
  let from = null;
  const show = ({ candles, limits }) => {
    const at = (candle) => Math.floor(Date.parse(candle.start_at) / 1000);
    wanted = limits;
    columns.setData(candles.map((candle) => ({ time: at(candle), value: candle.cleared_gpus })));
    line.setData(candles.map((one) => (one.close === null ? { time: at(one) } : { time: at(one), value: Number(one.close) })));
    for (const mark of marks) line.removePriceLine(mark);
    marks = [...new Set(limits)].map((limit) =>
      line.createPriceLine({ price: limit, color: colour("--alarm"), lineStyle: LineStyle.Dotted, title: "your limit" }),
    );
    // Another interval is another picture; the same one goes on where its reader has scrolled it.
    const begins = candles.length > 1 ? at(candles[1]) - at(candles[0]) : null;
    if (begins !== from) chart.timeScale().fitContent();
    from = begins;
  };
  return { show, remove: () => chart.remove() };
}

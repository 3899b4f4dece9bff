/**
 * A filter as the steps that the engine takes (shared/layout/engine/capture.ts). Each leads to a later one or to the end,
 * so however a filter is written it takes no more steps than it has.
 */
import * as L from "../layout/engine/capture.ts";
import { POOL_PF, POOL_UPLINK } from "../layout/engine/map.ts";
import { COUNTERS } from "../layout/counter_names.ts";
import { type Base, type Expression, FilterError, type Names, parseFilter, type Test } from "./filter.ts";

const BASES: Record<Base, number> = {
  frame: L.STEP_FRAME,
  network: L.STEP_NETWORK,
  transport: L.STEP_TRANSPORT,
  meta: L.STEP_META,
};

/** A place that steps lead to: known once what is there has been written. */
interface Label {
  step: number;
}

interface Step extends Pick<Test, "base" | "offset" | "mask" | "value"> {
  yes: Label;
  no: Label;
}

/** The counters that count frames which were dropped, by name. */
export const DROP_COUNTERS: readonly string[] = COUNTERS.map(([name]) => name).filter((name) =>
  !/frames$|bytes$|multicast$|broadcast$|interrupts|unfetched|held$/.test(name)
);

/** What a filter may name, where `kind` N is pool N up to `count`. */
function namesOf(kind: "vf" | "vport", count: number): Names {
  return {
    poolOf(port) {
      if (port === "uplink") return POOL_UPLINK;
      if (port === "pf" && kind === "vf") return POOL_PF;
      const [, word, number] = /^(vf|vport) (\d{1,3})$/.exec(port) ?? [];
      return word === kind && Number(number) < count ? Number(number) : undefined;
    },
    dropOf: (counter) => DROP_COUNTERS.includes(counter) ? COUNTERS.findIndex(([name]) => name === counter) : undefined,
    meta: {
      ...{ pool: L.XM_POOL, direction: L.XM_DIRECTION, dropped: L.XM_DROPPED, type: L.XM_TYPE },
      ...{ vlan: L.XM_VLAN, protocol: L.XM_PROTOCOL, ports: L.XM_PORTS },
    },
    directions: { inbound: L.CAPTURE_IN, outbound: L.CAPTURE_OUT },
    noVlan: L.NO_VLAN,
  };
}

function write(tree: Expression, yes: Label, no: Label, steps: Step[]): void {
  if (tree.kind === "test") {
    const { base, offset, mask, value } = tree;
    steps.push({ base, offset, mask, value, yes, no });
  } else if (tree.kind === "not") {
    write(tree.of, no, yes, steps);
  } else {
    tree.parts.forEach((part, i) => {
      const isLast = i === tree.parts.length - 1;
      const next: Label = { step: -1 };
      const goesOn = isLast ? undefined : next;
      if (tree.kind === "and") write(part, goesOn ?? yes, no, steps);
      else write(part, yes, goesOn ?? no, steps);
      next.step = steps.length;
    });
  }
}

/**
 * The steps of a filter, as they lie in the engine's memory; none for an empty one. `count`: how many ports of `kind` there
 * are. Throws FilterError.
 */
export function compileFilter(text: string, kind: "vf" | "vport", count: number): Uint8Array<ArrayBuffer> {
  if (text.trim() === "") return new Uint8Array();
  const steps: Step[] = [];
  write(parseFilter(text, namesOf(kind, count)), { step: L.STEP_WANTED }, { step: L.STEP_UNWANTED }, steps);
  if (steps.length > L.CAPTURE_STEPS_MAX) {
    throw new FilterError(`it takes ${steps.length} comparisons, and a filter may take ${L.CAPTURE_STEPS_MAX}`);
  }
  const bytes = new Uint8Array(steps.length * L.CAPTURE_STEP_STRIDE);
  const view = new DataView(bytes.buffer);
  steps.forEach(({ base, offset, mask, value, yes, no }, i) => {
    const at = i * L.CAPTURE_STEP_STRIDE;
    view.setUint8(at + L.XF_BASE, BASES[base]);
    view.setUint8(at + L.XF_OFFSET, offset);
    view.setUint8(at + L.XF_BYTES, mask.length);
    view.setUint16(at + L.XF_YES, yes.step, true);
    view.setUint16(at + L.XF_NO, no.step, true);
    bytes.set(mask, at + L.XF_MASK);
    bytes.set(value, at + L.XF_VALUE);
  });
  return bytes;
}

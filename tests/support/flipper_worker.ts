/** The thread of flipper.ts. */
import type { FlipOrder } from "./flipper.ts";

self.onmessage = ({ data }: MessageEvent<FlipOrder>) => {
  const { memory, offsets, values, control } = data;
  const words = new Uint16Array(memory);
  for (let round = 0; Atomics.load(control, 1) === 0; round++) {
    for (const [i, offset] of offsets.entries()) words[offset >> 1] = values[(round + i) % values.length] ?? 0;
    Atomics.add(control, 0, 1);
  }
  self.postMessage("ended");
};

/** What a capture of everything costs those whose frames it copies: at full load it has its share of the time, and no more. */
import { measure } from "./measure.ts";
import type { Row } from "./row.ts";
import { type Kit, World } from "./world.ts";

const SNAP_BYTES = 128;
const SLOT = 24;

/** Opens a capture of all ports, which is read while the engine's clock stands still. */
function openCapture({ kit, rig, ports }: World, vfs: number): void {
  const { Captures } = kit.engine;
  if (!Captures) throw new Error("Cannot capture: this checkout's engine has no captures");
  const arena = {
    buffer: rig.view.buffer,
    allocate: (bytes: number) => ({ offset: kit.rig.EngineRig.guestOffset(SLOT), bytes }),
    release() {},
  };
  const engine = { arena, view: rig.view, between: <T>(change: () => T): T => change() };
  const capture = new Captures(engine as unknown as ConstructorParameters<typeof Captures>[0]).open({
    interfaces: Array.from({ length: vfs }, (_, pool) => ({ pool, name: `vf${pool}` })),
    ...{ snapBytes: SNAP_BYTES, filter: new Uint8Array(), isDroppedOnly: false },
  });
  ports.push({
    refill() {
      while (capture.take());
    },
    drained: () => true,
  });
}

/** The row. */
export function captured(base: string): Row {
  return {
    name: `one flow, captured with ${SNAP_BYTES} bytes of each frame`,
    unit: "ns/frame",
    base,
    goal: { atMost: 1.05 },
    run(kit: Kit, time) {
      const world = new World(kit, 2);
      world.sender(0, world.frames(world.mac(0), [world.mac(1)]));
      world.receiver(1);
      openCapture(world, 2);
      return measure(world, true, time).nsPerFrame;
    },
  };
}

/** Interrupts that are coalesced, set by HTTP: in force whoever serves the guest's rings, and none is ever lost. */
import { assert, assertEquals } from "@std/assert";
import type { VfPatch } from "../../shared/api/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, type FrontEndGuest } from "../support/front_end.ts";
import { must, setMode } from "../support/guests.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";

const FRAMES = 200;

/** A sender, and a receiver that looks into its ring only when it has been interrupted. */
class Pair implements AsyncDisposable {
  readonly #sender: FrontEnd;
  readonly #receiver: FrontEnd<FrontEndGuest>;
  readonly #frame: Uint8Array;

  constructor(sender: FrontEnd, receiver: FrontEnd<FrontEndGuest>, macs: { from: string; to: string }) {
    this.#sender = sender;
    this.#receiver = receiver;
    this.#frame = frame({ dst: macs.to, src: macs.from });
    sender.guest.tx().noInterrupt = true;
    receiver.guest.fill(32);
  }

  /** Sends frames, `together` at a time, and serves the receiver's interrupts until all are there. */
  async move(frames: number, together: number): Promise<void> {
    let came = 0;
    for (let sent = 0; sent < frames;) {
      for (let i = 0; i < together; i++) {
        this.#sender.guest.room();
        this.#sender.guest.send([this.#frame]);
        this.#sender.kick();
        await until("the frame to be taken", () => this.#sender.guest.unsent() === 0, 10_000, 0);
      }
      sent += together;
      await until("the interrupt", () => {
        if (this.#receiver.takeCalls(0) === 0n) return false;
        const now = this.#receiver.guest.receive().length;
        this.#receiver.guest.fill(now);
        came += now;
        return came === sent;
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sender[Symbol.asyncDispose]();
    await this.#receiver[Symbol.asyncDispose]();
  }
}

type Queue = { index: number; frames: number; calls: number; callsSaved: number };

const WAYS = ["passthrough", "emulated", "vport"] as const;

for (const way of WAYS) {
  for (const format of ["split", "packed"] as const) {
    Deno.test(`${way}, ${format}: frames share interrupts as the PF says, and none goes without`, async () => {
      await using fabric = await TestFabric.start(2);
      const [from, vf] = [fabric.vf(0), fabric.vf(1)];
      const vport = way === "vport" ? await must(`${fabric.info.api}/api/v1/vports`, "POST", { id: 0 }) : undefined;
      const port: { mac: string; socket: string } = vport ?? vf;
      const set = (policy: Partial<VfPatch>) =>
        vport ? must(`${fabric.info.api}/api/v1/vports/0`, "PATCH", policy) : fabric.patch(1, policy);
      await until("the port", () => Deno.stat(port.socket).then(() => true).catch(() => false));
      const sender = await FrontEnd.connect(from.socket).start();
      const receiver = await FrontEnd.connectAs(format, port.socket).start();
      await using pair = new Pair(sender, receiver, { from: from.mac, to: port.mac });
      if (way === "emulated") await setMode(fabric, 1, { mode: "emulated" });
      await set({ rxUsecs: 0 });
      // Frames of a port on the software switch are found once it has sent one: the first ones are flooded.
      await pair.move(4, 1);

      const queue = async (): Promise<Queue> => {
        if (vport) {
          const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/vport0`, "GET");
          return session.queues[0];
        }
        return (await fabric.get("/api/v1/vfs/1")).queues[0];
      };
      /** What the API says of frames that were moved meanwhile. */
      const counted = async (step: () => Promise<void>) => {
        const before = await queue();
        await step();
        const after = await queue();
        return {
          frames: after.frames - before.frames,
          interrupts: after.calls - before.calls,
          saved: after.callsSaved - before.callsSaved,
        };
      };

      assertEquals(await counted(() => pair.move(FRAMES, 1)), { frames: FRAMES, interrupts: FRAMES, saved: 0 });
      await set({ adaptiveRx: false, rxUsecs: 10_000, rxFrames: 4 });
      const four = await counted(() => pair.move(FRAMES, 4));
      // A test that is kept from the CPU for 10 ms sees an interrupt for fewer.
      assert(four.interrupts < FRAMES / 2, `${four.interrupts} interrupts for ${FRAMES} frames, four at a time`);
      assert(four.saved > 0 && four.interrupts + four.saved <= FRAMES, `${four.saved} saved`);
      const alone = await counted(() => pair.move(20, 1));
      // The one before may have come late, for a frame that the receiver had seen already.
      assert(alone.interrupts > 10 && alone.interrupts + alone.saved <= 21, JSON.stringify(alone));
      await set({ adaptiveRx: true, rxUsecs: 50, rxFrames: 64 });
      const { frames, interrupts, saved } = await counted(() => pair.move(FRAMES, 4));
      assertEquals(frames, FRAMES);
      assert(interrupts + saved <= FRAMES, `${interrupts} interrupts, ${saved} saved`);
    });
  }
}

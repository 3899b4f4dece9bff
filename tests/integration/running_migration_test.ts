/**
 * A QEMU guest moves between two fabrics while it runs, under a ping every 10 ms and under TCP, on every data path. What
 * is lost is what was sent while it stood still, or had no address. RINGFABRIC_MOVES=all adds the other kinds of rings.
 */
import { assert } from "@std/assert";
import { setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { QemuGuest } from "../support/qemu.ts";
import { MODES, type QemuMove, QemuMoves, STAYING_VF, VF } from "../support/qemu_moves.ts";
import { GuestTraffic } from "../support/qemu_traffic.ts";

const MOVES = 10;
const ALL = Deno.env.get("RINGFABRIC_MOVES") === "all";
const DEVICES = ["split,mergeable", "split", "packed,mergeable", "packed"];
const PING_INTERVAL_MS = 10;
/** Those under way when it stops, and the clocks by which times are told. */
const LOST_BESIDE = 2;

function deviceOf(rings: string): string {
  return `packed=${rings.startsWith("packed") ? "on" : "off"},mrg_rxbuf=${rings.endsWith("mergeable") ? "on" : "off"}`;
}

function median(moves: readonly QemuMove[], what: keyof QemuMove): number {
  return moves.map((move) => move[what]).sort((a, b) => a - b)[moves.length >> 1] ?? 0;
}

function show(moves: readonly QemuMove[], lost: readonly number[]): void {
  console.log(
    `medians: QEMU's downtime ${median(moves, "downtimeMs")} ms, paused ${median(moves, "pausedMs").toFixed(1)} ms, ` +
      `added by the fabrics ${median(moves, "addedMs").toFixed(1)} ms (at the most ${
        Math.max(...moves.map(({ addedMs }) => addedMs)).toFixed(1)
      }), swap ${median(moves, "swapMs")} ms; pings lost: ${lost.join(" ")}`,
  );
}

for (const rings of ALL ? DEVICES : DEVICES.slice(0, 1)) {
  judgedTest(["qemu"], `a running QEMU guest (${rings}) moves ${MOVES} times under a ping every 10 ms`, async () => {
    await QemuMoves.play({ device: deviceOf(rings), runs: true }, async (scene) => {
      const [moves, losses]: [QemuMove[], number[]] = [[], []];
      for (let i = 0; i < MOVES; i++) {
        const mode = MODES[i % MODES.length] ?? {};
        await setMode(scene.here, VF, mode);
        await scene.pingsAnswered();
        const { result: move, lost } = await scene.pinged(PING_INTERVAL_MS, () => scene.move(true));
        await scene.check(mode);
        const due = Math.ceil((move.pausedMs + move.addedMs) / PING_INTERVAL_MS);
        assert(
          lost <= due + LOST_BESIDE,
          `${lost} pings were lost in ${JSON.stringify(mode)}: ${JSON.stringify(move)}`,
        );
        moves.push(move);
        losses.push(lost);
      }
      show(moves, losses);
      await scene.isSound();
    });
  });
}

judgedTest(["qemu"], `a running QEMU guest moves under TCP both ways, and what arrives is what was sent`, async () => {
  await QemuMoves.play({ device: deviceOf("split,mergeable"), runs: true }, async (scene) => {
    const [near] = scene.fabrics;
    await using stays = await QemuGuest.boot(near.vf(STAYING_VF));
    const ip = scene.ip.replace(/\d+$/, "201");
    await stays.address(`${ip}/24`);
    const moving = {
      get guest() {
        return scene.guest;
      },
      get fabric() {
        return scene.here;
      },
      vf: VF,
      ip: scene.ip,
    };
    const traffic = await GuestTraffic.start(moving, { guest: stays, fabric: near, vf: STAYING_VF, ip });
    await traffic.flows();
    for (let i = 0; i < (ALL ? MOVES : MODES.length); i++) {
      const mode = MODES[i % MODES.length] ?? {};
      await setMode(scene.here, VF, mode);
      await scene.move();
      await scene.check(mode);
      await traffic.flows();
    }
    await traffic.end();
    await scene.isSound();
  });
});

/**
 * A QEMU guest moves from one fabric to another and back by QEMU's own `migrate`, under pings through a tagged VLAN: its
 * VF's policy and address go with it (`fabric migrate`), in passthrough and on every data path of emulated mode.
 */
import { setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { MODES, QemuMoves, VF, VLAN } from "../support/qemu_moves.ts";
import { until } from "../support/wait.ts";

for (const [ring, device] of [["split", "mrg_rxbuf=on"], ["packed", "packed=on"]] as const) {
  judgedTest(["qemu"], `a QEMU guest with ${ring} rings moves there and back in every mode, under pings`, async () => {
    await QemuMoves.play({ device }, async (scene) => {
      for (const mode of MODES) {
        await setMode(scene.here, VF, mode);
        await scene.move();
        await scene.check(mode);
      }
      await scene.isSound();
    });
  });
}

judgedTest(
  ["qemu", "tshark"],
  "a QEMU guest that has moved is announced on its VF's VLAN, by itself or by RARP",
  async (t) => {
    for (
      const [who, device, seen] of [["the guest", "guest_announce=on", "arp.isgratuitous"], [
        "RARP",
        "guest_announce=off",
        "vlan.etype == 0x8035",
      ]]
    ) {
      await t.step(who as string, async () => {
        await QemuMoves.play({ device: device as string }, async (scene, cable) => {
          const wanted = `${seen} && eth.src == ${scene.mac} && vlan.id == ${VLAN}`;
          await using judge = new TestProcess("tshark", "tshark", [
            ...["-i", cable.ends[0], "-l", "-n", "-Y", wanted, "-T", "fields", "-e", "eth.src"],
          ]);
          await until("tshark", () => judge.all.includes("Capture started"));
          await scene.move();
          await judge.expect(new RegExp(`^${scene.mac}`, "m"));
        });
      });
    }
  },
);

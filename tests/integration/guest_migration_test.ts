/**
 * A built-in guest moves between two fabrics by `fabric migrate`, from a host whose VFs are advanced hardware to one whose
 * VFs are virtio hardware and back, so that another plugin drives its VF each time; and whatever goes wrong in the middle
 * leaves it where it was.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fabricCli } from "../support/cli.ts";
import { DEFAULTS, MovesScene, POLICY, VF } from "../support/guest_moves.ts";
import { ask, must, setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { authorized, TEST_TOKEN } from "../support/token.ts";
import { until } from "../support/wait.ts";

const MOVES = 20;
const RATE = 10_000;
/** A generator that could not send for a while catches up at so many times its rate. */
const CATCH_UP = 4;

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;
}

judgedTest(
  ["root"],
  `a built-in guest moves ${MOVES} times between advanced and virtio hardware, under streams both ways`,
  async () => {
    await using scene = await MovesScene.start();
    const hardware = ["advanced", "virtio"] as const;
    for (const [i, fabric] of scene.fabrics.entries()) await fabric.patch(VF, { hardware: hardware[i] ?? "any" });
    await setMode(scene.ends[0], VF, { mode: "passthrough" });
    await scene.reached();
    const to = await scene.peer.send(scene.ip, { rate: RATE, size: 128 });
    const back = await scene.guest.send(scene.peer.ip, { rate: RATE / 2, size: 128 });
    const downtimesMs: number[] = [];
    for (let move = 0; move < MOVES; move++) {
      downtimesMs.push(await scene.move());
      await scene.check();
      const { plugin } = await scene.ends[0].get(`/api/v1/vfs/${VF}`);
      assertEquals(plugin.split(" ")[0], hardware[scene.at]);
    }
    const stoodMs = downtimesMs.reduce((sum, ms) => sum + ms, 0);
    const { sent } = await scene.peer.stop(to.id);
    await scene.streamIsWhole(to.flow, sent, scene.guest, Math.ceil(stoodMs / 1000 * RATE * CATCH_UP));
    // It sends nothing while it stands still, and what it has sent has left before that.
    const gone = await scene.guest.stop(back.id);
    await scene.streamIsWhole(back.flow, gone.sent, scene.peer, 0);
    const lost = (await scene.guest.flow(to.flow))?.lost;
    const [p50, p99] = [percentile(downtimesMs, 0.5), percentile(downtimesMs, 0.99)];
    console.log(
      `downtime p50 ${p50} ms, p99 ${p99} ms; ${lost} of ${sent} frames lost, ${
        Math.round(stoodMs / 1000 * RATE)
      } were due`,
    );
  },
);

/** Reads all that a guest sends when it leaves; it is stopped then. */
async function departure(api: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await authorized(`${api}/api/v1/departure`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  assertEquals(response.status, 200);
  return new Uint8Array(await response.arrayBuffer());
}

/** Has a stream come to a seat; answers its status and reason. */
async function arrive(api: string, stream: Uint8Array<ArrayBuffer>): Promise<[number, string | undefined]> {
  const headers = { "content-type": "application/octet-stream" };
  const response = await authorized(`${api}/api/v1/arrival`, { method: "POST", headers, body: stream });
  return [response.status, (await response.json()).reason];
}

async function seatIs(scene: MovesScene, api: string, wanted: string, deadlineMs?: number): Promise<void> {
  await until(`the seat at ${api} to be ${wanted}`, async () => {
    for (const fabric of scene.fabrics) {
      const guests = await must(`${fabric.url("vf")}/api/v1/guests`);
      if (guests.some((guest: { api: string; seat: string }) => guest.api === api && guest.seat === wanted)) {
        return true;
      }
    }
    return false;
  }, deadlineMs);
}

judgedTest(
  ["root"],
  "fabric migrate: a move that does not come to its end leaves the guest where it was, on its plugin",
  async (t) => {
    await using scene = await MovesScene.start();
    const [near, far] = scene.fabrics;
    await setMode(near, VF, { mode: "passthrough", plugin: "virtio" });
    await scene.reached();
    const stream = await scene.guest.send(scene.peer.ip, { rate: 1000, size: 200 });
    const isHere = async () => {
      await scene.check();
      const { plugin } = await near.get(`/api/v1/vfs/${VF}`);
      assertEquals([plugin, (await must(`${far.info.api}/api/v1/vfs/${VF}/mode`)).mode], ["virtio 1.0.0", "emulated"]);
    };
    /** So slow that it is still copied when something happens. */
    const slow = ["--max-rate", "1"];

    await t.step("the seat there is another machine", async () => {
      const { code, err } = await scene.migrate("--to-vf", "0");
      const why = "the guest has 1 queue pairs, and this seat 2 (--queue-pairs); the guest goes on where it came from";
      assertEquals([code, err.trim()], [1, `fabric: the seat there: ${why}`]);
      await isHere();
    });
    await t.step("no seat waits there", async () => {
      const { code, err } = await scene.migrate("--to-vf", "2");
      assertEquals(code, 1);
      assertStringIncludes(err, "no seat waits for a built-in guest on the target's vf 2: --to-vf 0 or 1 has one");
      await isHere();
    });
    await t.step("somebody cancels it", async () => {
      const moving = scene.migrate(...slow);
      await scene.leaving();
      const cancelled = await fabricCli(["--run-dir", near.runDir, "migrate", String(VF), "--cancel"]);
      assertEquals([cancelled.code, cancelled.out.trim()], [0, `the guest goes on on vf ${VF}`]);
      const { code, err } = await moving;
      assertEquals([code, err.trim()], [1, "fabric: the guest goes on here: the move was cancelled"]);
      await isHere();
      const { state, problem } = await must(`${scene.guest.api}/api/v1/departure`);
      assertEquals([state, problem.reason], ["failed", "cancelled"]);
    });
    await t.step("its time is over", async () => {
      const { code, err } = await scene.migrate(...slow, "--timeout", "1");
      assertEquals(code, 1);
      assertEquals([code, err.trim()], [
        1,
        "fabric: the guest was not there within 1 s (--timeout): it goes on where it is",
      ]);
      await isHere();
    });
    for (const signal of ["SIGINT", "SIGKILL"] as const) {
      await t.step(`the command ends by ${signal}`, async () => {
        const words = ["run", "-A", "--quiet", "services/cli/main.ts", ...scene.words(...slow)];
        const command = new TestProcess("fabric", Deno.execPath(), words, { env: { RINGFABRIC_TO_TOKEN: TEST_TOKEN } });
        await scene.leaving();
        await command.end(signal);
        await seatIs(scene, scene.guest.api, "running");
        await seatIs(scene, scene.emptySeat, "waiting");
        if (signal === "SIGINT") return await isHere();
        // Nobody was left to take the policy back, nor to give the guest its plugin again.
        await setMode(near, VF, { mode: "passthrough", plugin: "virtio" });
        await far.patch(VF, DEFAULTS);
        await isHere();
      });
    }
    await t.step("the seat there is killed", async () => {
      const moving = scene.migrate(...slow);
      await scene.leaving();
      Deno.kill(far.guestPid(VF) ?? 0, "SIGKILL");
      const { code, err } = await moving;
      assertEquals(code, 1);
      assertStringIncludes(err, "the guest's way is broken");
      await seatIs(scene, scene.emptySeat, "waiting");
      await isHere();
    });
    await t.step(
      "another VF there has got its address meanwhile: the source has it again, and the guest with it",
      async () => {
        const moving = scene.migrate("--max-rate", "4");
        await scene.leaving();
        await far.patch(0, { mac: scene.mac, vlan: POLICY.vlan });
        const { code, err } = await moving;
        assertEquals(code, 1);
        assertStringIncludes(err, `the target does not get ${scene.mac}`);
        assertStringIncludes(err, "the source has it again");
        await far.patch(0, { mac: null, vlan: 0 });
        await isHere();
      },
    );
    await t.step("and then it moves", async () => {
      await scene.move();
      await scene.check();
    });
    const { sent } = await scene.guest.stop(stream.id);
    await scene.streamIsWhole(stream.flow, sent, scene.peer, 0);
  },
);

judgedTest(
  ["root"],
  "a stopped guest goes on where its address is, whoever moved it is gone; a wrong stream is no guest",
  async (t) => {
    await using scene = await MovesScene.start();
    const [near, far] = scene.fabrics;
    const [here, there] = [scene.guest.api, scene.emptySeat];
    await scene.reached();
    const departed = await departure(here);

    await t.step("stopped: nothing is asked of it, and nobody says that it has arrived: it goes on", async () => {
      const { status, body } = await ask(`${here}/api/v1/ping`, "POST", { to: scene.peer.ip });
      assertEquals([status, body.reason], [409, "no-guest"]);
      await seatIs(scene, here, "running");
      await scene.reached();
    });
    await t.step("streams that are cut, altered or of another version; the seat waits on", async () => {
      const altered = (at: number) => departed.map((byte, i) => i === at ? byte ^ 1 : byte);
      const cases: [string, Uint8Array<ArrayBuffer>, string][] = [
        ["nothing", new Uint8Array(0), "stream-cut"],
        ["cut before its end", departed.slice(0, -1), "stream-cut"],
        ["cut in the middle", departed.slice(0, departed.length / 2), "stream-cut"],
        ["altered in a page", altered(departed.length / 2 | 0), "stream-altered"],
        ["another's beginning", altered(0), "stream-altered"],
        ["longer than it is", new Uint8Array([...departed, 0]), "stream-altered"],
      ];
      for (const [what, stream, reason] of cases) assertEquals(await arrive(there, stream), [422, reason], what);
      assertEquals((await must(`${there}/api/v1/arrival`)).seat, "waiting");
      assertEquals(await arrive(here, departed), [409, "wrong-seat"], "a seat that has a guest");
    });
    await t.step("arrived, but its address has not: it does not run, and is forgotten on demand", async () => {
      assertEquals(await arrive(there, departed), [200, undefined]);
      await seatIs(scene, there, "arrived");
      assertEquals((await ask(`${there}/api/v1/ping`, "POST", { to: scene.peer.ip })).status, 409);
      await scene.reached();
      assertEquals((await must(`${there}/api/v1/arrival`, "DELETE")).seat, "waiting");
    });
    await t.step(
      "handed over, and its address is not given away: it comes back; only the key takes it back sooner",
      async () => {
        await departure(here);
        const { key } = await must(`${here}/api/v1/departure/commit`, "POST", {});
        const { status, body } = await ask(`${here}/api/v1/departure`, "DELETE");
        assertEquals([status, body.reason], [409, "committed"]);
        await must(`${here}/api/v1/departure?key=${key}`, "DELETE");
        await seatIs(scene, here, "running");
        await departure(here);
        await must(`${here}/api/v1/departure/commit`, "POST", {});
        await seatIs(scene, here, "gone");
        await seatIs(scene, here, "running", 20_000);
        await scene.reached();
      },
    );
    await t.step(
      "its address is given to the target, and nobody says more: it runs there, and does not here",
      async () => {
        await far.patch(VF, POLICY);
        assertEquals(await arrive(there, await departure(here)), [200, undefined]);
        const { key } = await must(`${here}/api/v1/departure/commit`, "POST", {});
        await near.patch(VF, { mac: "02:00:00:00:77:01" });
        await far.patch(VF, { mac: scene.mac });
        await seatIs(scene, there, "running");
        await seatIs(scene, here, "gone");
        await must(`${here}/api/v1/departure/finish`, "POST", { key });
        await near.patch(VF, DEFAULTS);
        scene.at = 1;
        await scene.check();
      },
    );
  },
);

judgedTest(["root", "tshark"], "a built-in guest that has moved is announced on its VF's VLAN", async () => {
  await using scene = await MovesScene.start();
  await scene.reached();
  const wanted = `arp.isgratuitous && eth.src == ${scene.mac} && vlan.id == ${POLICY.vlan}`;
  await using judge = new TestProcess("tshark", "tshark", [
    ...["-i", scene.interface, "-l", "-n", "-Y", wanted, "-T", "fields", "-e", "eth.src"],
  ]);
  await until("tshark", () => judge.all.includes("Capture started"));
  await scene.move();
  await judge.expect(new RegExp(`^${scene.mac}`, "m"));
});

/**
 * Direct paths when what is around them changes or breaks: services that die, memory that comes, goes, or is lost, rings
 * that stop. Each of a guest's buffers comes back once, whatever happens.
 */
import { assert, assertEquals } from "@std/assert";
import { QUEUE_REASONS } from "../../shared/engine/mod.ts";
import { MEMORY_GONE } from "../../shared/layout/nic.ts";
import { Bystanders } from "../support/bystanders.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, type FrontEndGuest, singleRegion } from "../support/front_end.ts";
import { ask, must, setMode } from "../support/guests.ts";
import { resize, unsealableMemfd } from "../support/memory.ts";
import { frame } from "../support/mock_guest.ts";
import { StreamedPair } from "../support/streamed_pair.ts";
import { until } from "../support/wait.ts";

const FORMATS = ["split", "packed", "packed in-order"] as const;
const PATHS = ["zerocopy", "headersplit"] as const;
const MIB = 1024 ** 2;
/** A frame whose buffers were taken may come again when its taker was killed before it returned them: a burst. */
const REPEATED_MAX = 256;

/** A pair whose VFs are on a direct path. */
async function direct(fabric: TestFabric, format: typeof FORMATS[number], dataPath: string): Promise<StreamedPair> {
  for (const vf of [0, 1]) await setMode(fabric, vf, { mode: "emulated", dataPath });
  return await StreamedPair.attach(fabric, format);
}

for (const format of FORMATS) {
  for (const path of PATHS) {
    Deno.test(`${path}, ${format}: nic and vhost killed under a stream: no buffer is lost, and none comes back twice`, async (t) => {
      await using fabric = await TestFabric.start(2);
      await using pair = await direct(fabric, format, path);
      const { a, b, stream } = pair;
      for (const name of ["nic", "vhost"]) {
        await t.step(`${name} killed`, async () => {
          await stream.more(500);
          const pid = fabric.pid(name);
          Deno.kill(pid, "SIGKILL");
          await stream.during(`${name} to be there again`, () => ![undefined, pid].includes(fabric.pids()[name]));
          for (const [front, vf] of name === "vhost" ? [[a, 0], [b, 1]] as const : []) {
            await stream.during(
              "vhost to take its guest again",
              () => front.reconnect(fabric.vf(vf).socket).then(() => true).catch(() => false),
            );
          }
          await stream.more(500);
          await stream.end();
          assert(stream.repeated <= REPEATED_MAX, `${stream.repeated} frames came again`);
          stream.repeated = 0;
          pair.checkBuffers();
          assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0/mode`)).dataPath, path);
        });
      }
    });
  }
}

for (const format of FORMATS) {
  Deno.test(`zerocopy, ${format}: rings that stop and go on, and memory that comes and goes, under a stream: nothing is lost`, async () => {
    await using fabric = await TestFabric.start(2);
    await using pair = await direct(fabric, format, "zerocopy");
    const { a, b, stream } = pair;
    const spare = (n: number) => ({
      guestAddress: 0x9_0000_0000n + BigInt(n * MIB),
      userAddress: 0x6f00_0000_0000n + BigInt(n * MIB),
      size: BigInt(MIB),
      mmapOffset: 0n,
    });
    for (let round = 0; round < 12; round++) {
      await stream.more(200);
      for (const front of [a, b]) {
        const region = singleRegion(spare(round));
        assertEquals(await front.acknowledged("VHOST_USER_ADD_MEM_REG", region, [front.memory.fd.number]), 0n);
      }
      await stream.more(100);
      await front(round).then((front) => front.startVring(round % 4 < 2 ? 0 : 1));
      await stream.more(100);
      for (const front of [a, b]) {
        assertEquals(await front.acknowledged("VHOST_USER_REM_MEM_REG", singleRegion(spare(round))), 0n);
      }
    }
    await stream.end();
    assertEquals([stream.received, stream.lost, stream.repeated], [stream.sent, 0, 0]);
    pair.checkBuffers();
    const { receivedDirect } = (await must(`${fabric.info.api}/api/v1/vfs/1/mode`)).frames;
    assert(receivedDirect > 0);

    /** Stops a ring of one of them. */
    async function front(round: number): Promise<FrontEnd<FrontEndGuest>> {
      const front = round % 2 === 0 ? a : b;
      await front.stopVring(round % 4 < 2 ? 0 : 1);
      return front;
    }
  });
}

Deno.test("a guest on zero copy that truncates its memory stops itself: its neighbours go on, and it can come again", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  for (const vf of [0, 1, 2]) await setMode(fabric, vf, { mode: "emulated", dataPath: "zerocopy" });
  await bystanders.check();
  const { nic, vhost } = fabric.pids();
  for (let round = 0; round < 3; round++) {
    {
      const memory = unsealableMemfd(4 * MIB);
      await using evil = await FrontEnd.connect(fabric.vf(2).socket, { memory }).start();
      // Buffers that the NIC alone looks into: in the part that goes.
      const at = 3 * MIB;
      const length = evil.guest.writeFrame(at, frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac, bytes: 1000 }));
      resize(memory, 2 * MIB);
      evil.guest.tx().add([{ addr: evil.guest.iova(at), len: length }]);
      evil.guest.tx().publish();
      evil.kick();
      await until("its rings to stop", async () => {
        const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/2`);
        const reason = QUEUE_REASONS[MEMORY_GONE] as string;
        return session?.vrings.every(({ error }: { error?: string }) => error?.startsWith(reason));
      });
      await until("the NIC to have none of its memory", async () => {
        return !(await must(`${fabric.info.api}/api/v1/vfs/2`)).attached;
      });
    }
    await bystanders.check(8);
  }
  assertEquals(fabric.pids(), { ...fabric.pids(), nic, vhost }, "no service had to be restarted");
  await using good = await FrontEnd.connect(fabric.vf(2).socket).start();
  good.guest.send([frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac })]);
  good.kick();
  await until("its frame to be sent", () => good.guest.unsent() === 0);
});

Deno.test("a data path that cannot be is refused with its reason, and the one before stays", async () => {
  await using fabric = await TestFabric.start(3);
  const { id } = await must(`${fabric.info.api}/api/v1/vports`, "POST", {});
  const put = (path: string, body: unknown) => ask(`${fabric.info.api}/api/v1/${path}/mode`, "PUT", body);
  const refused = async (path: string, body: unknown) => {
    const { status, body: { field, reason } } = await put(path, body);
    return [status, field, reason];
  };
  assertEquals(await refused("vfs/0", { mode: "emulated", dataPath: "sideways" }), [422, "dataPath", undefined]);
  assertEquals(await refused("vfs/0", { mode: "passthrough", dataPath: "zerocopy" }), [
    422,
    "dataPath",
    "incompatible-mode",
  ]);
  assertEquals(await refused(`vports/${id}`, { mode: "emulated", dataPath: "zerocopy" }), [
    409,
    "dataPath",
    "incompatible-mode",
  ]);
  // Two large guests in passthrough leave the third one its part of the NIC's arena; it wants more.
  await using first = await FrontEnd.connect(fabric.vf(0).socket, { bytes: 1900 * MIB }).start();
  await using second = await FrontEnd.connect(fabric.vf(1).socket, { bytes: 1300 * MIB }).start();
  void [first, second];
  await setMode(fabric, 2, { mode: "emulated" });
  await using third = await FrontEnd.connect(fabric.vf(2).socket, { bytes: 1000 * MIB }).start();
  assertEquals(await refused("vfs/2", { mode: "emulated", dataPath: "zerocopy" }), [
    409,
    "mode",
    "memory-not-shareable",
  ]);
  const { dataPath, lastFailure } = await must(`${fabric.info.api}/api/v1/vfs/2/mode`);
  assertEquals([dataPath, lastFailure.reason], ["copy", "memory-not-shareable"]);
  third.guest.send([frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac })]);
  third.kick();
  await until("its frame to be sent", () => third.guest.unsent() === 0);
});

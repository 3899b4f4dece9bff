/** What front-ends are interrupted by, besides eventfds: sockets, as User-Mode Linux sends them, and pipes. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, u64, vringState } from "../support/front_end.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";
import { Wakeup, type WakeupKind } from "../support/wakeup.ts";
import { authorized } from "../support/token.ts";

const KINDS: WakeupKind[] = ["eventfd", "socket", "pipe"];
const FRAMES = 50;

/** Sends frames both ways; each is waited for by its interrupt alone, never by looking into the ring. */
async function exchange(guests: readonly [FrontEnd, FrontEnd], macs: readonly [string, string]): Promise<void> {
  for (const [from, to] of [[0, 1], [1, 0]] as const) {
    const [sender, receiver] = [guests[from], guests[to]];
    const { availIdx, usedIdx } = receiver.guest.rx();
    receiver.guest.fill(32 - ((availIdx - usedIdx) & 0xffff));
    for (let i = 0; i < FRAMES; i++) {
      const sent = frame({ dst: macs[to], src: macs[from], bytes: 60 + i });
      sender.takeCalls(1);
      receiver.takeCalls(0);
      sender.guest.send([sent]);
      sender.kick();
      await until("the receiver's interrupt", () => receiver.takeCalls(0));
      assertEquals(receiver.guest.receive(), [sent]);
      await until("the sender's interrupt", () => sender.takeCalls(1));
      assert(sender.guest.tx().popUsed());
      receiver.guest.fill(1);
    }
  }
}

async function processFds(fabric: TestFabric, service: string): Promise<number> {
  let count = 0;
  for await (const _ of Deno.readDir(`/proc/${fabric.pid(service)}/fd`)) count++;
  return count;
}

async function setMode(fabric: TestFabric, vf: number, mode: string): Promise<void> {
  const response = await authorized(`${fabric.info.api}/api/v1/vfs/${vf}/mode`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ mode }),
  });
  const body = await response.text();
  assert(response.ok, body);
}

for (const callKind of KINDS) {
  Deno.test(`a front-end whose call descriptors are of kind ${callKind} gets every interrupt, in both modes`, async () => {
    await using fabric = await TestFabric.start(2);
    const macs = [fabric.vf(0).mac, fabric.vf(1).mac] as const;
    await using a = await FrontEnd.connect(fabric.vf(0).socket, { callKind }).start();
    await using b = await FrontEnd.connect(fabric.vf(1).socket).start();
    await exchange([a, b], macs);
    await setMode(fabric, 0, "emulated");
    await exchange([a, b], macs);
    await setMode(fabric, 0, "passthrough");
    await exchange([a, b], macs);
  });
}

Deno.test("a call descriptor may be replaced by one of another kind while its queue runs", async () => {
  await using fabric = await TestFabric.start(2);
  await using a = await FrontEnd.connect(fabric.vf(0).socket).start();
  for (const kind of ["pipe", "socket", "eventfd", "pipe"] as const) {
    using call = new Wakeup(kind);
    a.send("VHOST_USER_SET_VRING_CALL", u64(1n), [call.sent.number]);
    await until("the interrupt that a new descriptor begins with", () => call.take());
    a.guest.send([frame({ dst: fabric.vf(1).mac, src: fabric.vf(0).mac })]);
    a.kick();
    await until("the interrupt of a frame", () => call.take());
    assert(a.guest.tx().popUsed());
  }
});

Deno.test("an error descriptor of any kind is told when its queue stops", async () => {
  await using fabric = await TestFabric.start(1);
  for (const kind of KINDS) {
    await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
    using err = new Wakeup(kind);
    front.send("VHOST_USER_SET_VRING_ERR", u64(1n), [err.sent.number]);
    assertEquals(await front.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(1, 1)), 0n);
    assertEquals(err.take(), 0n);
    front.guest.tx().publish(500);
    front.kick();
    await until(`the error ${kind}`, () => err.take());
  }
});

Deno.test("front-ends with pipes come and go, and leave no descriptor and no thread behind", async () => {
  await using fabric = await TestFabric.start(1);
  const threads = () => [...Deno.readDirSync(`/proc/${fabric.pid("vhost")}/task`)].length;
  const round = async (rings: number) => {
    await using front = await FrontEnd.connect(fabric.vf(0).socket, { callKind: "pipe" }).start();
    for (let i = 0; i < rings; i++) {
      using call = new Wakeup("pipe");
      front.send("VHOST_USER_SET_VRING_CALL", u64(BigInt(i % 2)), [call.sent.number]);
      assertEquals(await front.acknowledged("VHOST_USER_SET_STATUS", u64(15n)), 0n);
    }
  };
  const settled = () =>
    until("the session to end", async () => {
      const port = await (await authorized(`${fabric.url("vhost")}/api/v1/ports/0`)).json();
      return port.connected === false;
    });
  await round(200);
  await settled();
  const before = { fds: await processFds(fabric, "vhost"), threads: threads() };
  for (let i = 0; i < 10; i++) await round(2);
  await settled();
  await until("all descriptors to be closed", async () => await processFds(fabric, "vhost") <= before.fds + 4);
  await until("all threads to end", () => threads() <= before.threads + 4);
});

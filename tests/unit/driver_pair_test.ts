/** A driver pair of the vhost service, with this test in the place of the NIC. */
import { ADV_PAGE_BYTES, ADV_REG_INTERRUPT } from "../../shared/layout/advanced.ts";
import { Channel } from "../../shared/device/mod.ts";
import { createMemfd, type Fd, Reactor, signalEventFd, UnixListener, WasmMemory } from "../../shared/os/mod.ts";
import { Emulation } from "../../services/vhost/emulation.ts";
import { LIMITS } from "../support/limits.ts";
import { until } from "../support/wait.ts";

/** A NIC that says yes, and keeps the call descriptor of the receive queue. */
async function nic(listener: UnixListener, page: Fd, call: (fd: Fd) => void): Promise<void> {
  const socket = await listener.accept();
  if (!socket) return;
  using channel = new Channel(socket);
  for (let packet = await channel.receive(); packet; packet = await channel.receive()) {
    const { id, op, index } = packet.message as { id: number; op: string; index?: number };
    const isReceive = op === "queueStart" && index === 0;
    for (const fd of packet.fds) isReceive ? call(fd) : fd.close();
    const value = op === "attach" ? { features: 0n, maxQueuePairs: 1 } : {};
    channel.send({ id, ok: true, value }, op === "region" ? [page.number] : []);
  }
}

Deno.test("an interrupt that finds nothing is answered by asking for the next one", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-pair-" });
  const reactor = new Reactor();
  const listener = UnixListener.listen(`${dir}/nic.sock`, "seqpacket", reactor);
  using page = createMemfd("registers", ADV_PAGE_BYTES);
  const registers = new WasmMemory(ADV_PAGE_BYTES);
  registers.map(0, page.number, 0, ADV_PAGE_BYTES);
  let call: Fd | undefined;
  const serving = nic(listener, page, (fd) => call = fd);
  const emulation = await Emulation.start({ cpus: [], spinUs: 0, ...LIMITS });
  try {
    const pair = await emulation.connect({
      ...{
        deviceSocket: listener.path,
        reactor,
        remote: 0,
        pool: 200,
        owner: "test",
        emulated: true,
        directness: "copy",
      },
      onChange: () => {},
      isReceiving: () => true,
      log: () => {},
    });
    const interrupt = () => registers.view.getUint32(ADV_REG_INTERRUPT, true);
    for (let round = 0; round < 3; round++) {
      await until("the pair to ask for an interrupt", () => interrupt() === 1);
      // What the NIC announces the pair has seen before it fell asleep.
      registers.view.setUint32(ADV_REG_INTERRUPT, 0, true);
      signalEventFd(call?.number ?? -1);
    }
    await until("the pair to ask again", () => interrupt() === 1);
    await emulation.disconnect(pair, "the test is over");
  } finally {
    await emulation.close();
    call?.close();
    listener.close();
    await serving;
    await reactor.close();
    await Deno.remove(dir, { recursive: true });
  }
});

/**
 * QEMU's machines, each with its own way of putting a virtio device into the guest: pc, q35, and microvm with
 * virtio-mmio. And drivers that go and come: unbound from their device and bound again, a hundred times.
 */
import { assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { type BootOptions, QemuGuest } from "../support/qemu.ts";
import { until } from "../support/wait.ts";

const ROUNDS = 100;
const MACHINES: BootOptions["machine"][] = ["pc", "q35", "microvm"];

const pings = async (guest: QemuGuest, address: string) => (await guest.run(`ping -c 1 -W 1 ${address}`)).code === 0;

judgedTest(["qemu"], "guests of pc, q35 and microvm reach each other", async () => {
  await using fabric = await TestFabric.start(MACHINES.length);
  await using stack = new AsyncDisposableStack();
  const guests = await Promise.all(
    MACHINES.map((machine, vf) =>
      QemuGuest.boot(fabric.vf(vf), { machine: machine ?? "pc" }).then((guest) => stack.use(guest))
    ),
  );
  for (const [i, guest] of guests.entries()) await guest.address(`10.0.0.${i + 1}/24`);
  for (const guest of guests) {
    for (const to of MACHINES.keys()) await until(`a ping to ${to}`, () => pings(guest, `10.0.0.${to + 1}`), 20_000);
  }
});

for (const queuePairs of [1, 4]) {
  judgedTest(["qemu"], `a driver is unbound and bound ${ROUNDS} times, ${queuePairs} queue pairs`, async () => {
    await using fabric = await TestFabric.start(2);
    const extra = queuePairs > 1 ? ["-smp", "2", "-global", "virtio-net-pci.mq=on"] : [];
    await using a = await QemuGuest.boot(fabric.vf(0), { queuePairs, extra });
    await using b = await QemuGuest.boot(fabric.vf(1));
    await b.address("10.0.0.2/24");
    const driver = "/sys/bus/virtio/drivers/virtio_net";
    for (let i = 0; i < ROUNDS; i++) {
      await a.check(`echo virtio0 > ${driver}/unbind; echo virtio0 > ${driver}/bind`);
      if (i % 10 !== 9) continue;
      await a.address("10.0.0.1/24");
      await until(`a ping after round ${i}`, () => pings(a, "10.0.0.2"), 20_000);
    }
    const { lastEnd, session } = await must(`${fabric.url("vhost")}/api/v1/ports/0`);
    assertEquals([lastEnd, session.vrings.filter(({ error }: { error?: string }) => error)], [undefined, []]);
    const { output } = await a.run("dmesg | grep -E 'soft lockup|BUG:|Oops:|WARNING:'");
    assertEquals(output, "");
  });
}

/**
 * Offloads between Linux guests (User-Mode Linux): every file arrives whole, whatever each side of a pair has agreed to.
 * A proxy withholds features from a guest (tests/support/feature_mask.ts). RINGFABRIC_OFFLOAD_MATRIX=full tries every
 * guest with every other, which takes half an hour.
 */
import { assert, assertEquals } from "@std/assert";
import { judgeCapture } from "../support/capture.ts";
import { TestFabric } from "../support/fabric.ts";
import { type Feature, FeatureMask } from "../support/feature_mask.ts";
import { offloadsOf, TestFile, transfer, TRANSFER_PORT } from "../support/guest_transfer.ts";
import { setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { UmlGuest } from "../support/uml.ts";
import { until } from "../support/wait.ts";

const MIB = 1024 ** 2;
/** A frame of MTU 1500 with its Ethernet header and a tag. */
const TAGGED_BYTES_MAX = 1518;
const MEMORY = "128M";
const ADDRESSES = [["10.0.0.1", "fd00::1"], ["10.0.0.2", "fd00::2"]] as const;

/** What is withheld from each guest of a pair, and what its VFs are. */
interface Case {
  withheld: readonly [readonly Feature[], readonly Feature[]];
  mtu?: 1500 | 9000;
  modes?: readonly [keyof typeof VF_MODES, keyof typeof VF_MODES];
}

/** How a VF is driven. */
const VF_MODES = {
  passthrough: { mode: "passthrough" },
  emulated: { mode: "emulated", dataPath: "copy" },
  zerocopy: { mode: "emulated", dataPath: "zerocopy" },
  headersplit: { mode: "emulated", dataPath: "headersplit" },
} as const;

const EVERYTHING: readonly Feature[] = [];
const NOTHING: readonly Feature[] = ["csum"];

/** One pair for each thing that can differ, and what two of them together could break. */
const CASES: readonly Case[] = [
  { withheld: [EVERYTHING, NOTHING] },
  { withheld: [EVERYTHING, NOTHING], mtu: 9000 },
  { withheld: [EVERYTHING, ["tso"]] },
  { withheld: [["tso"], NOTHING], mtu: 9000 },
  { withheld: [EVERYTHING, ["mergeable"]] },
  { withheld: [["packed"], ["mergeable"]], mtu: 9000 },
  { withheld: [EVERYTHING, ["packed"]], mtu: 9000 },
  { withheld: [["packed"], ["csum", "mergeable", "packed"]] },
  { withheld: [["mergeable", "packed"], ["tso", "packed"]] },
  { withheld: [["mergeable"], ["csum", "mergeable"]], mtu: 9000 },
  { withheld: [EVERYTHING, EVERYTHING], modes: ["emulated", "passthrough"] },
  { withheld: [EVERYTHING, NOTHING], modes: ["emulated", "emulated"] },
  { withheld: [EVERYTHING, EVERYTHING], modes: ["zerocopy", "zerocopy"] },
  { withheld: [EVERYTHING, NOTHING], mtu: 9000, modes: ["headersplit", "zerocopy"] },
  { withheld: [["mergeable"], ["packed"]], modes: ["zerocopy", "headersplit"] },
];

/** All subsets of what can be withheld; without checksums there is no segmentation. */
function everyGuest(): Feature[][] {
  const flags: Feature[][] = [[], ["mergeable"], ["packed"], ["mergeable", "packed"]];
  return flags.flatMap((some): Feature[][] => [some, ["tso", ...some], ["csum", ...some]]);
}

function everyCase(): Case[] {
  const guests = everyGuest();
  return ([1500, 9000] as const).flatMap((mtu) =>
    guests.flatMap((a, i) => guests.slice(i).map((b): Case => ({ withheld: [a, b], mtu })))
  );
}

/** Two guests on VFs 0 and 1, which reach each other. */
class Pair implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack;
  readonly guests: readonly [UmlGuest, UmlGuest];
  readonly masks: readonly [FeatureMask, FeatureMask];

  private constructor(stack: AsyncDisposableStack, guests: [UmlGuest, UmlGuest], masks: [FeatureMask, FeatureMask]) {
    this.#stack = stack;
    this.guests = guests;
    this.masks = masks;
  }

  static async boot(
    fabric: TestFabric,
    { withheld, mtu = 1500, modes }: Case,
    moreModules: readonly string[] = [],
  ): Promise<Pair> {
    await using stack = new AsyncDisposableStack();
    for (const vf of [0, 1]) {
      await fabric.patch(vf, { mtu });
      await setMode(fabric, vf, VF_MODES[modes?.[vf] ?? "passthrough"]);
    }
    // Without merged buffers Linux has 64 KiB in each, and fills the rings of all queues, though it has one CPU.
    const mask = (vf: 0 | 1) => stack.use(new FeatureMask(fabric.vf(vf).socket, ["multiqueue", ...withheld[vf]]));
    const masks: [FeatureMask, FeatureMask] = [mask(0), mask(1)];
    const modules = ["ipv6", ...moreModules];
    const boot = async (vf: 0 | 1) => stack.use(await UmlGuest.boot(masks[vf].socket, { memory: MEMORY, modules }));
    const guests = await Promise.all([boot(0), boot(1)]);
    for (const [i, guest] of guests.entries()) {
      const [v4, v6] = ADDRESSES[i] ?? [];
      await guest.address(`${v4}/24`);
      await guest.check(`ip addr add ${v6}/64 dev eth0 nodad`);
    }
    await guests[0].untilReaches(ADDRESSES[1][0]);
    return new Pair(stack.move(), guests, masks);
  }

  /** Sends the file one way over IPv4 and the other way over IPv6. */
  async exchange(file: TestFile): Promise<void> {
    const [a, b] = this.guests;
    assertEquals(await transfer(a, b, ADDRESSES[1][0], file), file.sha256);
    assertEquals(await transfer(b, a, ADDRESSES[0][1], file), file.sha256);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/** What a guest has, as its own tools and its driver say, is what was not withheld from it. */
async function checkAgreed({ guests, masks }: Pair, { withheld }: Case): Promise<void> {
  for (const i of [0, 1] as const) {
    const hasChecksum = !withheld[i].includes("csum");
    const hasSegmentation = hasChecksum && !withheld[i].includes("tso");
    const said = await offloadsOf(guests[i]);
    const names = ["tx-checksumming", "tx-tcp-segmentation", "tx-tcp6-segmentation"];
    assertEquals(names.map((name) => said.get(name)), [hasChecksum, hasSegmentation, hasSegmentation], `guest ${i}`);
    for (const name of ["mergeable", "packed"] as const) {
      assertEquals(await masks[i].hasAgreedTo(name), !withheld[i].includes(name), `guest ${i}: ${name}`);
    }
  }
}

function nameOf({ withheld, mtu = 1500, modes = ["passthrough", "passthrough"] }: Case): string {
  const [a, b] = withheld.map((list) => list.length === 0 ? "everything" : `no ${list.join(", ")}`);
  return `${a} and ${b}, MTU ${mtu}, ${modes.join(" and ")}`;
}

judgedTest(["uml"], "files arrive whole between guests of which one has what the other has not", async (t) => {
  await using fabric = await TestFabric.start(2);
  const isFull = Deno.env.get("RINGFABRIC_OFFLOAD_MATRIX") === "full";
  await using file = await TestFile.create((isFull ? 256 : 16) * MIB);
  for (const one of isFull ? everyCase() : CASES) {
    await t.step(nameOf(one), async () => {
      await using pair = await Pair.boot(fabric, one);
      await checkAgreed(pair, one);
      await pair.exchange(file);
    });
  }
});

judgedTest(
  ["uml"],
  "256 MiB cross whole between guests that take segments as they are, and few frames carry them",
  async () => {
    await using fabric = await TestFabric.start(2);
    await using file = await TestFile.create(256 * MIB);
    await using pair = await Pair.boot(fabric, { withheld: [EVERYTHING, EVERYTHING] });
    const before = await fabric.counters(1);
    assertEquals(await transfer(...pair.guests, ADDRESSES[1][0], file), file.sha256);
    const after = await fabric.counters(1);
    const of = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
    assert(of("rx_bytes") >= file.bytes);
    assert(of("rx_bytes") / of("rx_frames") > 8000, `${of("rx_frames")} frames of ${of("rx_bytes")} bytes`);
  },
);

judgedTest(
  ["uml", "tshark"],
  "a guest without offloads captures no bad checksum and no wrong length, tagged or not",
  async () => {
    await using fabric = await TestFabric.start(2);
    for (const vf of [0, 1]) await fabric.patch(vf, { trunk: [5] });
    await using file = await TestFile.create(8 * MIB);
    await using pair = await Pair.boot(fabric, { withheld: [EVERYTHING, NOTHING] }, ["8021q"]);
    const [a, b] = pair.guests;
    for (const [i, guest] of pair.guests.entries()) {
      await guest.check("ip link add link eth0 name eth0.5 type vlan id 5");
      await guest.check(`ip addr add 10.5.0.${i + 1}/24 dev eth0.5 && ip link set eth0.5 up`);
    }
    const dir = await Deno.makeTempDir({ prefix: "ringfabric-capture-" });
    const capture = `${dir}/frames.pcapng`;
    try {
      // What GRO puts together again is not what came.
      await b.check(`ethtool -K eth0 gro off && mount -t hostfs none /mnt -o ${dir}`);
      await b.check(
        "dumpcap -q -i eth0 -B 64 -w /mnt/frames.pcapng -f 'tcp or vlan' >/run/dumpcap 2>&1 & echo $! >/run/pid",
      );
      await until("the capture to begin", async () => (await b.run("test -s /mnt/frames.pcapng")).code === 0);
      for (const address of ["10.0.0.2", "fd00::2", "10.5.0.2"]) {
        assertEquals(await transfer(a, b, address, file), file.sha256);
      }
      // Its buffer has room for all of it, so nothing is lost.
      let before = 0;
      await until(
        "the capture to be whole, and to grow no more",
        async () => {
          const { size } = await Deno.stat(capture);
          const grows = size !== before;
          before = size;
          return !grows && size > 3 * file.bytes;
        },
        30_000,
        1000,
      );
      await b.check("kill -INT $(cat /run/pid)");
      await until("the capture to end", async () => (await b.run("kill -0 $(cat /run/pid)")).code !== 0);
      const { byType, longestBytes, faults } = await judgeCapture(capture, TRANSFER_PORT);
      assertEquals(faults, []);
      assertEquals(longestBytes, TAGGED_BYTES_MAX);
      const framesMin = file.bytes / TAGGED_BYTES_MAX;
      for (const type of ["0x0800", "0x86dd", "0x8100"]) {
        assert((byType[type] ?? 0) > framesMin, JSON.stringify(byType));
      }
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
);

judgedTest(["uml"], "a file arrives whole while both VFs change their modes", async () => {
  await using fabric = await TestFabric.start(2);
  await using file = await TestFile.create(64 * MIB);
  await using pair = await Pair.boot(fabric, { withheld: [EVERYTHING, NOTHING] });
  let isSending = true;
  const sent = transfer(...pair.guests, ADDRESSES[1][0], file).finally(() => isSending = false);
  for (let i = 0; isSending; i++) {
    const mode = (["emulated", "passthrough", "zerocopy", "headersplit"] as const)[(i >> 1) % 4] ?? "emulated";
    await setMode(fabric, i % 2, VF_MODES[mode]);
  }
  assertEquals(await sent, file.sha256);
});

/** The device socket's words for a queue's format: what each may say, and which hardware it belongs to. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import { DeviceClient, DeviceRefusal, Request, type RequestInput } from "../../shared/device/mod.ts";
import { Engine } from "../../shared/engine/mod.ts";
import { Reactor } from "../../shared/os/mod.ts";
import type { Programme } from "../../shared/api/mod.ts";
import { defaultPolicy } from "../../shared/api/policy.ts";
import { DeviceServer } from "../../services/nic/device.ts";
import type { NicExports } from "../../services/nic/exports.ts";
import { Nic } from "../../services/nic/nic.ts";
import { LIMITS } from "../support/limits.ts";

const FORMATS = ["split", "packed", "advanced"] as const;

function start(flavour: typeof FORMATS[number], base: number): RequestInput {
  return { op: "queueStart", index: 0, flavour, size: 16, desc: 0n, base, kick: false, call: false };
}

Deno.test("a packed ring's base has 32 bits, any other's 16; -1 asks the ring itself", () => {
  for (const flavour of FORMATS) {
    for (const base of [-1, 0, 65535]) assert(Request.safeParse(start(flavour, base)).success, `${flavour} ${base}`);
    for (const base of [65536, VIRTQ_PACKED_BASE_INITIAL, 0xffff_ffff]) {
      const { success, error } = Request.safeParse(start(flavour, base));
      assertEquals(success, flavour === "packed", `${flavour} ${base}`);
      if (error) assertStringIncludes(error.message, "only a packed ring's");
    }
    for (const base of [-2, 2 ** 32]) assert(!Request.safeParse(start(flavour, base)).success, `${flavour} ${base}`);
  }
});

/** Why the NIC refuses to start a queue of a VF that presents `hardware`; undefined if it does not. */
async function refusal(path: string, reactor: Reactor, vf: number, flavour: typeof FORMATS[number]) {
  using device = DeviceClient.connect(path, reactor);
  await device.request({ op: "attach", vf, owner: "test", mode: "passthrough" });
  if (flavour === "advanced") (await device.requestFd({ op: "region", name: "registers" })).close();
  try {
    await device.request(start(flavour, 0));
    return undefined;
  } catch (error) {
    if (error instanceof DeviceRefusal) return error.code;
    throw error;
  } finally {
    await device.request({ op: "detach" });
  }
}

Deno.test("split and packed rings are virtio hardware, the others advanced", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-formats-" });
  const reactor = new Reactor();
  const nic = new Nic(
    await Engine.start<NicExports>({ cpus: [], spinUs: 0 }),
    { ...LIMITS, graceMs: 60_000 },
  );
  const server = new DeviceServer(nic, `${dir}/nic.sock`, reactor, false);
  try {
    const presented = ["virtio", "advanced", "any"] as const;
    const policy = (hardware: typeof presented[number], vf: number) =>
      ({ ...defaultPolicy(`02:00:00:00:00:0${vf}`), hardware, fallback: "none" }) as Programme["vfs"][number];
    nic.program({ switchMode: "veb", link: "up", pfMac: "02:00:00:00:00:ff", vports: [], vfs: presented.map(policy) });
    for (const [vf, hardware] of presented.entries()) {
      for (const flavour of FORMATS) {
        const belongs = hardware === "any" || (hardware === "advanced") === (flavour === "advanced");
        const code = await refusal(`${dir}/nic.sock`, reactor, vf, flavour);
        assertEquals(
          code === "wrong-hardware",
          !belongs,
          `${flavour} rings of a VF that presents ${hardware}: ${code}`,
        );
      }
    }
  } finally {
    await server.close();
    await nic.close();
    await reactor.close();
    await Deno.remove(dir, { recursive: true });
  }
});

/** A service that `up` keeps running, of which nobody stands by. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { Child } from "../../services/up/child.ts";
import { childrenOf } from "../support/process.ts";
import { until } from "../support/wait.ts";

const SCRIPT = fromFileUrl(new URL("../support/living_service.ts", import.meta.url));
/** The kernel may be quick, or this test slow. */
const TRIES = 10;

function start(isStandby = false): Child {
  const spec = { name: "living", script: SCRIPT, permissions: ["-A"], args: [] };
  return new Child(spec, { print: () => {}, hopeless: () => undefined }, isStandby);
}

/** Processes of the service that run. One that the kernel takes down has no command line any more. */
function running(): number[] {
  return childrenOf(Deno.pid).filter((pid) => {
    try {
      return Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes(SCRIPT);
    } catch {
      return false;
    }
  });
}

/** Whether a second process was there before the first one, which is killed, was gone. */
async function overlaps(child: Child): Promise<boolean> {
  await child.ready;
  const first = child.pid as number;
  Deno.kill(first, "SIGKILL");
  let isEarly = false;
  const isNext = () => {
    isEarly ||= running().some((pid) => pid !== first) && childrenOf(Deno.pid).includes(first);
    return child.pid !== first;
  };
  await until("the next process", isNext, 20_000, 1);
  return isEarly;
}

Deno.test("a service that dies is started again before the kernel has taken it down, and stops as ever", async () => {
  let isEarly = false;
  for (let tries = 0; tries < TRIES && !isEarly; tries++) {
    const child = start();
    isEarly = await overlaps(child);
    await child.stop();
    assertEquals(running(), []);
  }
  assert(isEarly, "the next process never came before the last one was gone");
});

Deno.test("a service that dies while it is being stopped leaves no process behind", async () => {
  for (const pauseMs of [0, 3, 30]) {
    const child = start();
    await child.ready;
    Deno.kill(child.pid as number, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    await child.stop();
    assertEquals(running(), [], `${pauseMs} ms`);
  }
});

Deno.test("a process that stands by and dies before it was ever up is started again; the first of a service is not", async () => {
  for (const isStandby of [true, false]) {
    const child = start(isStandby);
    try {
      const first = await until("a process", () => child.pid);
      Deno.kill(first, "SIGKILL");
      if (isStandby) {
        await child.ready;
        assert(child.pid !== first);
      } else await assertRejects(() => child.ready, Error, "was killed by SIGKILL before it was ready");
    } finally {
      await child.stop();
    }
  }
});

/**
 * A service that says where its life is, as the NIC and vhost do when nobody stands by for them, until its standard input
 * ends. It has so much memory that the kernel takes a while to take it down.
 */
import { holdForLife, Life } from "../../shared/os/life.ts";

const BYTES = 128 * 1024 ** 2;

const life = new Life(1);
holdForLife(life.lock(0));
const memory = new Uint8Array(BYTES).fill(1);
console.log(`READY ${JSON.stringify({ life: { fd: life.file.number, threads: 1 }, bytes: memory.length })}`);
await Deno.stdin.readable.pipeTo(new WritableStream());

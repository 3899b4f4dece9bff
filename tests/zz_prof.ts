// one flow loop for perf
const root = Deno.args[0];
const { EngineRig, rigMac } = await import(`${root}/tests/support/engine_rig.ts`);
const { frame } = await import(`${root}/tests/support/mock_guest.ts`);
const rig = new EngineRig(2);
const a = rig.attach(0, { queueSize: 1024, bufferBytes: 512 }), b = rig.attach(1, { queueSize: 1024, bufferBytes: 512 });
b.fill(1024);
const f = frame({ dst: rigMac(1), src: rigMac(0) });
a.send(Array(1024).fill(f));
let ai = a.tx().availIdx, bi = b.rx().availIdx;
let ns = 0, n = 0; const end = performance.now() + Number(Deno.args[1] ?? 4000);
rig.run();
const before = rig.counters(1).rx_frames;
while (performance.now() < end) {
  for (let k = 0; k < 50; k++) {
    a.tx().publish((a.tx().usedIdx + 1024) & 0xffff);
    b.rx().publish((b.rx().usedIdx + 1024) & 0xffff);
    const t = performance.now(); rig.wasm.run(rig.nowNs += 1e4, 1); rig.wasm.run(rig.nowNs, 1); rig.wasm.run(rig.nowNs, 1); rig.wasm.run(rig.nowNs, 1); rig.wasm.run(rig.nowNs, 1); ns += performance.now() - t;
    rig.takeCalls();
  }
}
n = rig.counters(1).rx_frames - before;
console.log("ns/frame", (ns * 1e6 / n).toFixed(2), "frames", n);

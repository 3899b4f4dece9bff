/** How a guest attaches to a port, and how one looks at its frames: lines to copy. */
import { get } from "./api.js";
import { html, useEffect, useState } from "./vendor/preact.js";

const quoted = (word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
const line = (program, args) => [program, ...args].map(quoted).join(" ");

/** The card. */
export function AttachCard({ path, port, socket, canCapture }) {
  const [attach, setAttach] = useState(undefined);
  const [chosen, setChosen] = useState("QEMU");
  useEffect(() => {
    let isGone = false;
    get(`${path}/attach`).then((found) => !isGone && setAttach(found), () => {});
    return () => (isGone = true);
  }, [path]);
  const texts = attach && {
    QEMU: line("qemu-system-x86_64", attach.qemu),
    "QEMU with KVM": line("qemu-system-x86_64", attach.qemuKvm),
    libvirt: attach.libvirt,
    testpmd: `${line("dpdk-testpmd", ["-l", "0,1", ...attach.testpmd])} -- -i`,
  };
  return html`
    <section class="card" aria-labelledby="attach-title">
      <h2 id="attach-title">Attach a guest</h2>
      ${texts && html`
        <div class="segments" role="group" aria-label="For">
          ${Object.keys(texts).map((name) =>
            html`
              <button type="button" aria-pressed=${name === chosen} onClick=${() => setChosen(name)}>${name}</button>
            `
          )}
        </div>
        <${Copyable} text=${texts[chosen]} label=${`Arguments for ${chosen}`} />
      `}
      <p class="help">Its socket: <code>${socket}</code></p>
      ${canCapture && html`
        <h3>Look at its frames</h3>
        <${Copyable} text=${`fabric capture ${port} | wireshark -k -i -`} label="A command that captures its frames" />
        <p class="help">Frames that were dropped are there too, each with the reason in its comment.</p>
      `}
    </section>
  `;
}

/** A text with a button that copies it. */
function Copyable({ text, label }) {
  const [said, setSaid] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied.");
    } catch {
      setSaid("The browser does not let this page copy: mark the text.");
    }
    setTimeout(() => setSaid(""), 3000);
  };
  return html`
    <div class="copyable">
      <pre tabindex="0" role="group" aria-label=${label}>${text}</pre>
      <button type="button" onClick=${copy}>Copy</button>
      <span role="status">${said}</span>
    </div>
  `;
}

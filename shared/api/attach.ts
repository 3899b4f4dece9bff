/** How guests attach to a VF: the arguments for QEMU and for DPDK's testpmd. */

/** What is needed of a VF. */
export interface AttachTarget {
  id: number | "uplink" | `vport${number}`;
  mac: string;
  socket: string;
}

/** Options of `qemuArguments`. */
export interface QemuOptions {
  memory?: string;
  queuePairs?: number;
  /** With KVM the device gets MSI-X; under TCG, QEMU 7.2 crashes with MSI-X and vhost-user. */
  kvm?: boolean;
}

/** QEMU arguments that give a guest the VF as its network card. Guest RAM is a memfd that both processes map. */
export function qemuArguments(vf: AttachTarget, options: QemuOptions = {}): string[] {
  const { memory = "512M", queuePairs = 1, kvm = false } = options;
  const many = queuePairs > 1 ? `,queues=${queuePairs}` : "";
  const vectors = kvm ? (queuePairs > 1 ? `,vectors=${2 * queuePairs + 2}` : "") : ",vectors=0";
  const interrupts = `${queuePairs > 1 ? ",mq=on" : ""}${vectors}`;
  return [
    "-accel",
    kvm ? "kvm" : "tcg",
    "-m",
    memory,
    "-object",
    `memory-backend-memfd,id=mem,size=${memory},share=on`,
    "-numa",
    "node,memdev=mem",
    "-chardev",
    `socket,id=vf${vf.id},path=${vf.socket},reconnect=1`,
    "-netdev",
    `vhost-user,id=net${vf.id},chardev=vf${vf.id}${many}`,
    "-device",
    `virtio-net-pci,netdev=net${vf.id},mac=${vf.mac}${interrupts},romfile=`,
  ];
}

/** The testpmd argument that makes the VF a port of DPDK's virtio-user driver. */
export function testpmdArguments(
  vf: AttachTarget,
  options: { queuePairs?: number; queueSize?: number } = {},
): string[] {
  const { queuePairs = 1, queueSize = 256 } = options;
  const device = `net_virtio_user${vf.id},path=${vf.socket},queues=${queuePairs},queue_size=${queueSize},mac=${vf.mac}`;
  return ["--no-pci", "--single-file-segments", "--vdev", device];
}

/** The parts of a libvirt domain that give it the VF as its network card: shared memory, and the interface. */
export function libvirtInterface({ mac, socket }: AttachTarget, queuePairs = 1): string {
  const driver = queuePairs > 1 ? `\n  <driver queues='${queuePairs}'/>` : "";
  return `<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>

<interface type='vhostuser'>
  <mac address='${mac}'/>
  <source type='unix' path='${socket}' mode='client'>
    <reconnect enabled='yes' timeout='1'/>
  </source>
  <model type='virtio'/>${driver}
</interface>`;
}

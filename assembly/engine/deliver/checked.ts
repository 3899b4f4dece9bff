/** What the engine knows of a frame's checksums, in the words of an advanced write-back (82599 datasheet §7.1.6.2). */
import { ADV_RXD_ERR_IPE, ADV_RXD_STAT_IPCS, ADV_RXD_STAT_L4I } from "../../../shared/layout/advanced.ts";
import { HEAD_COPY_BYTES, O_HEADER, R_FLAGS, RECORD_F_OFFLOAD } from "../../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID } from "../../../shared/layout/virtio.ts";
import { fold, sum } from "../../lib/checksum.ts";
import { copiedHead, headCopyAt, headCopyBytes } from "../batch/record.ts";
import { isFragment, isIpv6, network, protocol, PROTOCOL_TCP, PROTOCOL_UDP, transportOf } from "../batch/transport.ts";

/**
 * Status and error bits for the frame of `record`: the checksum of TCP or UDP is good if it has been finished here, or if
 * somebody who is believed says so. Then the IPv4 header's is looked at too, as a card does.
 */
export function checkedStatus(record: usize): u32 {
  if ((load<u16>(record, R_FLAGS) & RECORD_F_OFFLOAD) == 0) return 0;
  if ((<u32> load<u8>(headCopyAt(record), O_HEADER) & VIRTIO_NET_HDR_F_DATA_VALID) == 0) return 0;
  const head = copiedHead(record, HEAD_COPY_BYTES);
  const known = headCopyBytes(record);
  const end = transportOf(head, known);
  if (end == 0 || end > known || isFragment || (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)) return 0;
  if (isIpv6) return ADV_RXD_STAT_L4I;
  const isGood = fold(sum(head + network, end - network, 0)) == 0;
  return ADV_RXD_STAT_L4I | ADV_RXD_STAT_IPCS | (isGood ? 0 : ADV_RXD_ERR_IPE);
}

/** Numbers of the pcapng format (IETF draft-ietf-opsawg-pcapng), for its reader and its writer. */

export const SECTION_HEADER = 0x0a0d0d0a;
export const INTERFACE = 1;
export const PACKET = 2;
export const SIMPLE_PACKET = 3;
export const STATISTICS = 5;
export const ENHANCED_PACKET = 6;
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
export const LINKTYPE_ETHERNET = 1;
export const OPT_END = 0;
export const OPT_COMMENT = 1;
export const OPT_IF_TSRESOL = 9;
export const OPT_ISB_IFDROP = 5;

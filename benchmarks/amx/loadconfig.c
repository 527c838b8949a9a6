/* What a compiler makes of a tile configuration that a function fills and loads, on a stack with other bytes. */
#include <immintrin.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((noinline)) static void configure(unsigned char rows) {
    unsigned char config[64] = {1};
    for (int tile = 0; tile < 8; tile++) { config[16 + 2 * tile] = 64; config[48 + tile] = rows; }
    _tile_loadconfig(config);
}

__attribute__((noinline)) static void dirty(void) {
    volatile unsigned char junk[512];
    memset((void *)junk, 0xff, sizeof junk);
}

int main(void) {
    if (syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18)) { puts("no permission for tiles"); return 2; }
    dirty();
    configure(16);
    puts("a configuration was loaded"); fflush(stdout);
    static int products[256], left[256], right[256];
    _tile_zero(0); _tile_loadd(1, left, 64); _tile_loadd(2, right, 64); _tile_dpbssd(0, 1, 2); _tile_stored(0, products, 64);
    puts("a product was computed");
    return 0;
}

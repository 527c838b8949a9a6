/* Is this processor's AMX right? Products of tiles against sums in a loop, in two processes that take turns. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sched.h>
#include <unistd.h>

static unsigned seed;
static unsigned next(void) { return seed = seed * 1664525u + 1013904223u; }
static void load(const void *config) { __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])config)); }
static float wide(unsigned short half) { unsigned bits = (unsigned)half << 16; float value; memcpy(&value, &bits, 4); return value; }

static int integers(int kind, int rows, int columns, int depth) {
    unsigned char config[64] = {1}, left[16][64], right[16][64];
    int got[16][16], want[16][16];
    config[16] = columns * 4; config[48] = rows; config[18] = depth * 4; config[49] = rows; config[20] = columns * 4; config[50] = depth;
    for (int i = 0; i < 1024; i++) { ((unsigned char *)left)[i] = next() >> 24; ((unsigned char *)right)[i] = next() >> 24; }
    for (int m = 0; m < 16; m++) for (int n = 0; n < 16; n++) {
        got[m][n] = want[m][n] = (int)(next() >> 12);
        if (m < rows && n < columns) for (int k = 0; k < depth; k++) for (int b = 0; b < 4; b++) {
            int x = left[m][4 * k + b], y = right[k][4 * n + b];
            want[m][n] += (kind & 2 ? (signed char)x : x) * (kind & 1 ? (signed char)y : y);
        }
    }
    load(config);
    _tile_loadd(0, got, 64); _tile_loadd(1, left, 64); sched_yield(); _tile_loadd(2, right, 64);
    sched_yield();
    if (kind == 3) _tile_dpbssd(0, 1, 2); else if (kind == 2) _tile_dpbsud(0, 1, 2); else if (kind == 1) _tile_dpbusd(0, 1, 2); else _tile_dpbuud(0, 1, 2);
    sched_yield();
    _tile_stored(0, got, 64); _tile_release();
    return memcmp(got, want, sizeof got) != 0;
}

static int brains(int rows, int columns, int depth) {
    unsigned char config[64] = {1};
    unsigned short left[16][32], right[16][32];
    float got[16][16]; double want[16][16]; int wrong = 0;
    config[16] = columns * 4; config[48] = rows; config[18] = depth * 4; config[49] = rows; config[20] = columns * 4; config[50] = depth;
    for (int i = 0; i < 512; i++) { ((unsigned short *)left)[i] = 0x3f00 + (next() >> 24); ((unsigned short *)right)[i] = (next() & 0x8000) + 0x3f00 + (next() >> 25); }
    for (int m = 0; m < 16; m++) for (int n = 0; n < 16; n++) {
        got[m][n] = want[m][n] = (float)(int)(next() >> 28);
        if (m < rows && n < columns) for (int k = 0; k < depth; k++) for (int b = 0; b < 2; b++)
            want[m][n] += (double)wide(left[m][2 * k + b]) * wide(right[k][2 * n + b]);
    }
    load(config);
    _tile_loadd(0, got, 64); _tile_loadd(1, left, 64); _tile_loadd(2, right, 64); sched_yield();
    _tile_dpbf16ps(0, 1, 2); _tile_stored(0, got, 64); _tile_release();
    for (int m = 0; m < 16; m++) for (int n = 0; n < 16; n++) { double off = got[m][n] - want[m][n]; wrong |= off > 1e-3 || off < -1e-3; }
    return wrong;
}

static int all(unsigned start) {
    int wrong = 0; seed = start;
    static const int shapes[][3] = {{16, 16, 16}, {1, 16, 16}, {9, 5, 3}, {16, 1, 8}};
    for (int round = 0; round < 20; round++) for (int s = 0; s < 4; s++) {
        for (int kind = 0; kind < 4; kind++) wrong += integers(kind, shapes[s][0], shapes[s][1], shapes[s][2]);
        wrong += brains(shapes[s][0], shapes[s][1], shapes[s][2]);
    }
    printf("%d of 400 products are wrong\n", wrong); fflush(stdout);
    return wrong != 0;
}

int main(void) {
    if (syscall(SYS_arch_prctl, 0x1023, 18)) { puts("no permission for tiles"); return 2; }
    pid_t child = fork();
    int wrong = all(child ? 1 : 2), status = 0;
    if (!child) _exit(wrong);
    waitpid(child, &status, 0);
    return wrong || status;
}

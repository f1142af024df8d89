/* Rounding, tables, and the formulas of the non-linear functions. */
#include "mu_tables.h"
#include "port.h"

int64_t rounding_shift(int64_t x, int t) {
    return t > 62 ? 0 : t ? (x + (INT64_C(1) << (t - 1))) >> t : x;
}
int64_t saturate(int64_t x, int bits) {
    int64_t high = (INT64_C(1) << (bits - 1)) - 1;
    return x > high ? high : x < -high - 1 ? -high - 1 : x;
}

int64_t narrow(int64_t acc, Multiplier by) {  // (5.3), tflite_single
    return rounding_shift(acc * by.m, 31 - by.shift);
}
int64_t wide(int64_t acc, Multiplier by) {  // (5.4)
    int64_t m = (by.m + (1 << 15)) >> 16;
    return rounding_shift(acc * (m > 0x7FFF ? 0x7FFF : m), 15 - by.shift);
}

// a table and its number of points, read on straight lines (5.6)
#define TABLE(name) mu_table_##name, (int)(sizeof mu_table_##name / sizeof mu_table_##name[0])

static int64_t between(const int32_t *table, int points, int64_t x, int fraction, int drop) {
    int64_t i = x >> fraction < points - 2 ? x >> fraction : points - 2;
    int64_t rest = x - (i << fraction), low = table[i], high = table[i + 1];
    return rounding_shift(low * (INT64_C(1) << fraction) + (high - low) * rest, fraction + drop);
}

int64_t gate(Text kind, int64_t u) {  // of tanh too
    int64_t size = llabs(u) < 16 << 16 ? llabs(u) : 16 << 16, g;
    if (!strcmp(kind, "tanh")) return (u < 0 ? -1 : 1) * between(TABLE(tanh), size, 9, 1);
    if (!strcmp(kind, "gelu_tanh")) g = between(TABLE(gate_gelu_tanh), size, 9, 1);
    else if (!strcmp(kind, "gelu")) g = between(TABLE(gate_gelu), size, 9, 1);
    else g = between(TABLE(gate_silu), size, 9, 1);
    return u < 0 ? (1 << 15) - g : g;
}
int64_t exp2_weight(int64_t u) {
    if (u > 31 << 16) u = 31 << 16;
    return between(TABLE(exp2), u & 0xFFFF, 8, 0) >> (u >> 16);
}

static int bit_length(int64_t x) { int n = 0; while (x >> n) n++; return n; }

Multiplier norm_multiplier(int64_t square_sum, Multiplier by) {
    if (!square_sum) return (Multiplier){0, 0};
    int k = (bit_length(square_sum) - 31) >> 1;  // rounds down
    int64_t rest = k > 0 ? square_sum >> (2 * k) : square_sum << (-2 * k);
    int64_t root = between(TABLE(rsqrt), rest - (1 << 30), 22, 0);
    return (Multiplier){root * by.m >> 30, by.shift - 15 - k};
}

int center(int64_t *x, int n) {  // returns v
    int64_t sum = 0, largest = 1;
    for (int i = 0; i < n; i++) sum += x[i];
    for (int i = 0; i < n; i++) {
        x[i] = n * x[i] - sum;
        if (llabs(x[i]) > largest) largest = llabs(x[i]);
    }
    int v = bit_length(largest) > 15 ? bit_length(largest) - 15 : 0;
    for (int i = 0; i < n; i++) x[i] = rounding_shift(x[i], v);
    return v;
}

static int64_t sine_of(uint32_t place) {
    uint32_t quadrant = place >> 30, within = place & ((1u << 30) - 1);
    if (quadrant & 1) within = (1u << 30) - within;
    int64_t size = between(TABLE(sine), within, 20, 15);
    return quadrant >= 2 ? -size : size;
}

void turn(uint64_t phase, int64_t *cosine, int64_t *sine) {
    uint32_t place = (uint32_t)(phase >> 32);
    *cosine = sine_of(place + (1u << 30));
    *sine = sine_of(place);
}

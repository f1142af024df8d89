/* One function for each operation: it reads its site's constants, and its result is recorded. */
#include "port.h"

Text call, config;
File constants, weights[2];
static Text encodings[2];  // JSON

void load_weights(int i, Text path) {
    weights[i] = read_tensors(path);
    encodings[i] = metadata(&weights[i], "activations");
    if (i) return;
    config = metadata(&weights[0], "config");
    if (strcmp(metadata(&weights[0], "rounding"), "tflite_single"))
        fail("%s must round as tflite_single does; other roundings are not ported", path);
}

// -- what a site has: `site#2` is its second set of constants, of other scales --------------------
const Tensor *constant(Text site, Text role) {
    const Tensor *tensor = find(&constants, text("%s.%s", site, role));
    if (!tensor) fail("constants must hold %s.%s; they do not", site, role);
    return tensor;
}
static int64_t number(Text site, Text role) { return element(constant(site, role), 0); }
static Multiplier multiplier(Text site, Text role) {
    Text m = text("%s.multiplier", role), shift = text("%s.shift", role);
    return (Multiplier){number(site, m), (int)number(site, shift)};
}

static Text plain(Text site) { return text("%.*s", (int)strcspn(site, "#"), site); }
static int of_drafter(Text site) { return !strncmp(site, "drafter.", 8); }
static int lines(Value x) { return x.rows * (x.heads ? x.heads : 1); }
static const Tensor *weight(Text site, Text part) {
    return find(&weights[of_drafter(site)], text("%s.%s", site, part));
}
static Value new_value(Value x, int width, Text site) {  // with the encoding of the site
    Text encoding = json_get(encodings[of_drafter(site)], plain(site));
    x.bits = json_int(encoding, "bits"), x.zero = json_int(encoding, "zero_point");
    x.q = allocate((size_t)(lines(x) * (x.width = width)) * 4);
    return x;
}
static void store(Value *x, int i, int64_t y) { x->q[i] = (int32_t)saturate(y + x->zero, x->bits); }

static Value recorded(Value x, Text site) {  // heads stand before rows there
    Text key = text("%s/%s", call, plain(site));
    int32_t *q = allocate((size_t)(lines(x) * x.width) * 4);
    for (int i = 0, n = x.heads ? x.heads : 1; i < lines(x); i++)
        memcpy(q + (i % n * x.rows + i / n) * x.width, x.q + i * x.width, (size_t)x.width * 4);
    if (x.heads) record(key, x.bits, q, 4, (int[]){1, x.heads, x.rows, x.width});
    else record(key, x.bits, q, 3, (int[]){1, x.rows, x.width});
    return x;
}

// -- operations that read a weight ---------------------------------------------------------------
Value embed(const int *tokens, int n, Text site) {
    const Tensor *table = weight(site, "weight"), *m = constant(site, "output.multiplier");
    const Tensor *shift = constant(site, "output.shift");
    int width = table->shape[1];
    Value out = new_value((Value){.rows = n}, width, site);
    for (int i = 0; i < n * width; i++) {
        int token = tokens[i / width];
        Multiplier by = {element(m, token), (int)element(shift, token)};
        store(&out, i, narrow(element(table, token * width + i % width), by));
    }
    return recorded(out, site);
}

Value linear(Value x, Text site, Text weight_site) {
    const Tensor *matrix = weight(weight_site, "weight"), *bias = weight(site, "bias");
    const Tensor *m = constant(site, "output.multiplier"), *shift = constant(site, "output.shift");
    int n_out = matrix->shape[0];
    Value out = new_value(x, n_out, site);
    for (int n = 0; n < n_out; n++) {
        const int8_t *w = (const int8_t *)matrix->data + n * x.width;
        Multiplier by = {element(m, n), (int)element(shift, n)};
        for (int line = 0; line < lines(x); line++) {
            int64_t acc = bias ? element(bias, n) : 0;
            for (int k = 0; k < x.width; k++) acc += (x.q[line * x.width + k] - x.zero) * w[k];
            store(&out, line * n_out + n, x.bits == 16 ? wide(acc, by) : narrow(acc, by));
        }
    }
    return recorded(out, site);
}

Value norm(Value x, Text kind, Text site) {
    const Tensor *gain = weight(site, "weight"), *bias = weight(site, "bias");
    int n = x.width, layer = !strcmp(kind, "layer");
    int64_t eps = number(site, "eps"), *steps = allocate((size_t)n * 8);
    Value out = new_value(x, n, site);
    for (int line = 0; line < lines(x); line++) {
        for (int i = 0; i < n; i++) steps[i] = x.q[line * n + i] - x.zero;
        int v = layer ? center(steps, n) : 0;
        int64_t square_sum = eps >> (2 * v);
        for (int i = 0; i < n; i++) square_sum += steps[i] * steps[i];
        Multiplier by = norm_multiplier(square_sum, multiplier(site, "output"));
        if (layer) by.shift = by.shift < 22 ? by.shift + 8 : 30;
        for (int i = 0; i < n; i++) {
            int64_t y = narrow(steps[i] * element(gain, i), by);
            store(&out, line * n + i, layer ? rounding_shift(y + element(bias, i), 8) : y);
        }
    }
    return recorded(out, site);
}

// -- operations on activations -------------------------------------------------------------------
Value rope(Value x, const Cache *places, int first, Text stack, Text site) {
    int half = x.width / 2;
    const Tensor *turns = constant(stack, "rope_turns");
    Value out = new_value(x, x.width, site);
    Multiplier by = multiplier(site, "output");
    for (int i = 0; i < lines(x) * half; i++) {
        int at = i / half * x.width + i % half;
        int64_t position = places->positions[first + i / half / x.heads], c, s;
        int64_t x1 = x.q[at] - x.zero, x2 = x.q[at + half] - x.zero;
        uint64_t speed = (uint64_t)element(turns, places->length * half + i % half);
        turn((uint64_t)position * speed, &c, &s);
        store(&out, at, narrow(x1 * c - x2 * s, by));
        store(&out, at + half, narrow(x2 * c + x1 * s, by));
    }
    return recorded(out, site);
}

Value matmul(Value a, Value b, int cyclic, int transpose, Text site) {
    int whole = b.heads * b.width, n = transpose ? b.rows : b.width;
    int along_n = transpose ? whole : 1, along_k = transpose ? 1 : whole;
    Value out = new_value(a, n, site);
    Multiplier by = multiplier(site, "output");
    for (int i = 0; i < lines(a) * n; i++) {
        int head = i / n % a.heads, read = cyclic ? head % b.heads : head / (a.heads / b.heads);
        const int32_t *left = a.q + i / n * a.width;
        const int32_t *right = b.q + read * b.width + i % n * along_n;
        int64_t acc = 0;
        for (int k = 0; k < a.width; k++)
            acc += (int64_t)(left[k] - a.zero) * (right[k * along_k] - b.zero);
        store(&out, i, a.bits == 16 || b.bits == 16 ? wide(acc, by) : narrow(acc, by));
    }
    return recorded(out, site);
}

Value softmax(Value x, Text mask, Text site) {
    Value out = new_value(x, x.width, site);
    Multiplier by = multiplier(site, "argument");
    int64_t *e = allocate((size_t)x.width * 8);
    for (int line = 0; line < lines(x); line++) {
        Text seen = mask + line / x.heads * x.width;
        const int32_t *from = x.q + line * x.width;
        int64_t largest = -(1 << 16), sum = 0;
        for (int j = 0; j < x.width; j++)
            if (seen[j] && from[j] > largest) largest = from[j];
        for (int j = 0; j < x.width; j++)
            sum += e[j] = seen[j] ? exp2_weight(narrow(largest - from[j], by)) : 0;
        for (int j = 0; j < x.width; j++) {
            int64_t scaled = e[j] << (out.bits == 8 ? 8 : 15);
            store(&out, line * x.width + j, sum ? (scaled + sum / 2) / sum : 0);
        }
    }
    return recorded(out, site);
}

Value activation(Value x, Text kind, Text site) {  // "tanh" is the soft-cap
    Value out = new_value(x, x.width, site);
    int relu = !strcmp(kind, "relu"), tanh = !strcmp(kind, "tanh");
    Multiplier by = multiplier(site, "output"), argument = relu ? by : multiplier(site, "argument");
    for (int i = 0; i < lines(x) * x.width; i++) {
        int64_t step = x.q[i] - x.zero;
        int64_t g = relu ? step > 0 : gate(kind, narrow(step, argument));
        store(&out, i, narrow(tanh ? g : step * g, by));
    }
    return recorded(out, site);
}

Value add(Value x, Value y, Text site) {  // (5.5)
    Value out = new_value(x, x.width, site);
    int64_t m_x = number(site, "x.multiplier"), m_y = number(site, "y.multiplier");
    int t = (int)number(site, "sum.shift");
    for (int i = 0; i < lines(x) * x.width; i++)
        store(&out, i, rounding_shift((x.q[i] - x.zero) * m_x + (y.q[i] - y.zero) * m_y, t));
    return recorded(out, site);
}

Value mul(Value x, Value y, Text site) {
    Value out = new_value(x, x.width, site);
    Multiplier by = multiplier(site, "output");
    for (int i = 0; i < lines(x) * x.width; i++)
        store(&out, i, narrow((int64_t)(x.q[i] - x.zero) * (y.q[i] - y.zero), by));
    return recorded(out, site);
}

Value concat(Value x, Value y, Text site) {
    Value out = new_value(x, x.width + y.width, site), parts[] = {x, y};
    size_t length = strcspn(site, "#");
    for (int part = 0, at = 0; part < 2; at += parts[part++].width) {
        Text from = text("%.*s.%c%s", (int)length, site, "xy"[part], part ? site + length : "");
        int width = parts[part].width, t = (int)number(from, "sum.shift");
        int64_t m = number(from, "x.multiplier");
        for (int i = 0; i < x.rows * width; i++)
            store(&out, i / width * out.width + at + i % width,
                  rounding_shift((parts[part].q[i] - parts[part].zero) * m, t));
    }
    return recorded(out, site);
}

// -- layout, and decisions: integers move, or stay where they are ---------------------------------
Value heads(Value x, int n) {
    x.width = x.width * (x.heads ? x.heads : 1) / (n ? n : 1), x.heads = n;
    return x;
}

Value rows(Value x, int first, int n) {
    x.q += first * (lines(x) / x.rows * x.width), x.rows = n;
    return x;
}

Value append(Value past, Value more) {
    if (!past.q) return more;
    size_t first = (size_t)(lines(past) * past.width), second = (size_t)(lines(more) * more.width);
    int32_t *q = memcpy(allocate((first + second) * 4), past.q, first * 4);
    memcpy(q + first, more.q, second * 4);
    past.q = q, past.rows += more.rows;
    return past;
}

int *argmax(Value x) {  // the lowest index of equals
    int *best = allocate((size_t)x.rows * 4);
    for (int i = 0, row = 0; i < x.rows * x.width; row = ++i / x.width)
        if (x.q[i] > x.q[row * x.width + best[row]]) best[row] = i % x.width;
    return best;
}

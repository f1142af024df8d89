/* One function for each operation: it reads its site's constants, and its result is recorded. */
#include <stdlib.h>
#include <string.h>

#include "port.h"

const char *call = "";

static File constants, weights[2];  /* of the model, and of a drafter */
static int n_weights;
static Rounding rounding = SINGLE;

static struct {
    char site[128];
    int bits, zero;
} encodings[4096];
static int n_encodings;

void load_constants(const char *path)
{
    constants = read_tensors(path);
}

void load_weights(const char *path)
{
    File file = weights[n_weights++] = read_tensors(path);
    const char *named = metadata(&file, "rounding"), *all = metadata(&file, "activations");
    if (named) rounding = !strcmp(named, "half_even") ? HALF_EVEN : !strcmp(named, "tflite_double") ? DOUBLE : SINGLE;
    if (!all) fail("%s must be an integer weight file; it has no encodings", path);
    for (const char *at = json_open(all); json_key(&at, encodings[n_encodings].site, 128); at = json_skip(at)) {
        encodings[n_encodings].bits = json_int(at, "bits");
        encodings[n_encodings].zero = json_int(at, "zero_point");
        if (++n_encodings == 4096) fail("%s must have fewer than 4096 sites", path);
    }
}

const File *constants_file(void)
{
    return &constants;
}

const File *weights_file(int i)
{
    return &weights[i];
}

/* -- what a site has --------------------------------------------------------------------------- */

typedef struct {
    const Tensor *m, *shift;
} Multipliers;

static const Tensor *constant(const char *site, const char *role)
{
    const Tensor *tensor = find(&constants, text("%s.%s", site, role));
    if (!tensor && strchr(site, '#'))  /* one scale only was met: it is the first set */
        return constant(text("%.*s", (int)strcspn(site, "#"), site), role);
    if (!tensor) fail("constants must hold %s.%s; they do not", site, role);
    return tensor;
}

static Multipliers multipliers(const char *site, const char *role)
{
    return (Multipliers){constant(site, text("%s.multiplier", role)), constant(site, text("%s.shift", role))};
}

static Multiplier of_channel(Multipliers by, int i)
{
    size_t channel = by.m->count > 1 ? (size_t)i : 0;
    return (Multiplier){element(by.m, channel), (int)element(by.shift, channel)};
}

static const Tensor *weight(const char *site, const char *part)
{
    const char *name = text("%s.%s", site, part);
    for (int i = 0; i < n_weights; i++) {
        const Tensor *tensor = find(&weights[i], name);
        if (tensor) return tensor;
    }
    return NULL;
}

static Value new_value(Value shape, const char *site)  /* with the encoding of a site */
{
    size_t length = strcspn(site, "#"), heads = shape.heads ? (size_t)shape.heads : 1;
    shape.q = allocate((size_t)shape.batch * heads * (size_t)shape.rows * (size_t)shape.width * 4);
    for (int i = 0; i < n_encodings; i++)
        if (!strncmp(encodings[i].site, site, length) && !encodings[i].site[length]) {
            shape.bits = encodings[i].bits, shape.zero = encodings[i].zero;
            return shape;
        }
    fail("the weight file must have an encoding of %s; it has none", site);
    return shape;
}

static size_t count(Value x)
{
    return (size_t)x.batch * (size_t)(x.heads ? x.heads : 1) * (size_t)x.rows * (size_t)x.width;
}

static Value recorded(Value x, const char *site)
{
    const char *key = text("%s/%.*s", call, (int)strcspn(site, "#"), site), *type = x.bits == 8 ? "I8" : "I16";
    if (x.heads) record(key, type, x.q, 4, (int[]){x.batch, x.heads, x.rows, x.width});
    else record(key, type, x.q, 3, (int[]){x.batch, x.rows, x.width});
    return x;
}

void decided(const char *name, const int *tokens, int rank, int n0, int n1, int n2)
{
    record(text("%s/%s", call, name), "I32", tokens, rank, (int[]){n0, n1, n2});
}

static int32_t stored(int64_t y, Value out)
{
    return (int32_t)saturate(y + out.zero, out.bits);
}

/* -- operations that read a weight -------------------------------------------------------------- */

Value embed(const int *tokens, int batch, int rows, const char *site)
{
    const Tensor *table = weight(site, "weight");
    int width = table->shape[1];
    Value out = new_value((Value){NULL, batch, 0, rows, width, 0, 0}, site);
    Multipliers by = multipliers(site, "output");
    for (int row = 0; row < batch * rows; row++)
        for (int i = 0; i < width; i++) {
            int64_t w = element(table, (size_t)tokens[row] * (size_t)width + (size_t)i);
            out.q[row * width + i] = stored(narrow(w, of_channel(by, tokens[row]), rounding), out);
        }
    return recorded(out, site);
}

Value linear(Value x, const char *site, const char *weight_site)
{
    const Tensor *matrix = weight(weight_site, "weight"), *bias = weight(site, "bias");
    int n_out = matrix->shape[0], n_in = matrix->shape[1];
    Value out = new_value((Value){NULL, x.batch, 0, x.rows, n_out, 0, 0}, site);
    Multipliers by = multipliers(site, "output");
    for (int row = 0; row < x.batch * x.rows; row++)
        for (int n = 0; n < n_out; n++) {
            const int8_t *w = (const int8_t *)matrix->data + (size_t)n * (size_t)n_in;
            int64_t acc = bias ? element(bias, (size_t)n) : 0;
            for (int k = 0; k < n_in; k++) acc += (int64_t)(x.q[row * n_in + k] - x.zero) * w[k];
            Multiplier one = of_channel(by, n);
            out.q[row * n_out + n] = stored(x.bits == 16 ? wide(acc, one) : narrow(acc, one, rounding), out);
        }
    return recorded(out, site);
}

Value norm(Value x, const char *kind, const char *site)
{
    const Tensor *gain = weight(site, "weight"), *bias = weight(site, "bias");
    int n = x.width, layer = !strcmp(kind, "layer");
    int64_t eps = element(constant(site, "eps"), 0), *steps = allocate((size_t)n * 8);
    Value out = new_value(x, site);
    Multiplier fixed = of_channel(multipliers(site, "output"), 0);
    for (int row = 0; row < x.batch * x.rows; row++) {
        for (int i = 0; i < n; i++) steps[i] = x.q[row * n + i] - x.zero;
        int v = layer ? center(steps, n) : 0;
        int64_t square_sum = eps >> (2 * v > 63 ? 63 : 2 * v);
        for (int i = 0; i < n; i++) square_sum += steps[i] * steps[i];
        Multiplier by = norm_multiplier(square_sum, fixed);
        if (layer) by.shift = by.shift + 8 < 30 ? by.shift + 8 : 30;
        for (int i = 0; i < n; i++) {
            int64_t y = narrow(steps[i] * element(gain, (size_t)i), by, SINGLE);
            if (layer) y = rounding_shift(y + (bias ? element(bias, (size_t)i) : 0), 8);
            out.q[row * n + i] = stored(y, out);
        }
    }
    return recorded(out, site);
}

/* -- operations on activations ------------------------------------------------------------------ */

Value rope(Value x, Places places, const char *site)
{
    int half = x.width / 2;
    Value out = new_value(x, site);
    Multiplier by = of_channel(multipliers(site, "output"), 0);
    for (int b = 0; b < x.batch; b++)
        for (int row = 0; row < x.heads * x.rows; row++) {
            const int32_t *from = x.q + (b * x.heads * x.rows + row) * x.width;
            int32_t *to = out.q + (from - x.q);
            int64_t position = places.positions[b * x.rows + row % x.rows], c, s;
            for (int i = 0; i < half; i++) {
                size_t pair = (size_t)places.turn_rows[b] * (size_t)half + (size_t)i;
                turn((uint64_t)position * (uint64_t)element(places.turns, pair), &c, &s);
                int64_t x1 = from[i] - x.zero, x2 = from[i + half] - x.zero;
                to[i] = stored(narrow(x1 * c - x2 * s, by, rounding), out);
                to[i + half] = stored(narrow(x2 * c + x1 * s, by, rounding), out);
            }
        }
    return recorded(out, site);
}

Value matmul(Value a, Value b, const int *head_of, int transpose, const char *site)
{
    int n = transpose ? b.rows : b.width, inner = a.width;
    Value out = new_value((Value){NULL, a.batch, a.heads, a.rows, n, 0, 0}, site);
    Multiplier by = of_channel(multipliers(site, "output"), 0);
    int is_wide = a.bits == 16 || b.bits == 16, along = transpose ? 1 : b.width;
    for (int head = 0; head < a.batch * a.heads; head++) {
        int other = head / a.heads * b.heads + head_of[head % a.heads];
        const int32_t *right = b.q + other * b.rows * b.width;
        for (int row = 0; row < a.rows; row++)
            for (int j = 0; j < n; j++) {
                const int32_t *left = a.q + (head * a.rows + row) * inner;
                int64_t acc = 0;
                for (int k = 0; k < inner; k++)
                    acc += (int64_t)(left[k] - a.zero) * (right[j * (transpose ? b.width : 1) + k * along] - b.zero);
                out.q[(head * a.rows + row) * n + j] = stored(is_wide ? wide(acc, by) : narrow(acc, by, rounding), out);
            }
    }
    return recorded(out, site);
}

Value softmax(Value x, const unsigned char *mask, const char *site)
{
    Value out = new_value(x, site);
    Multiplier by = of_channel(multipliers(site, "argument"), 0);
    int n = x.width;
    int64_t *e = allocate((size_t)n * 8);
    for (int row = 0; row < x.batch * x.heads * x.rows; row++) {
        const unsigned char *seen = mask + (row / (x.heads * x.rows) * x.rows + row % x.rows) * n;
        const int32_t *from = x.q + row * n;
        int64_t largest = -(1 << 16), sum = 0;
        for (int j = 0; j < n; j++)
            if (seen[j] && from[j] > largest) largest = from[j];
        for (int j = 0; j < n; j++) {
            e[j] = seen[j] ? exp2_weight(narrow(largest - from[j], by, SINGLE)) : 0;
            sum += e[j];
        }
        for (int j = 0; j < n; j++) {
            int64_t scaled = e[j] << (out.bits == 8 ? 8 : 15);
            out.q[row * n + j] = stored(sum ? (scaled + sum / 2) / sum : 0, out);
        }
    }
    return recorded(out, site);
}

Value activation(Value x, const char *kind, const char *site)
{
    Value out = new_value(x, site);
    int relu = !strcmp(kind, "relu");
    Multiplier by = of_channel(multipliers(site, "output"), 0), argument = by;
    if (!relu) argument = of_channel(multipliers(site, "argument"), 0);
    for (size_t i = 0; i < count(x); i++) {
        int64_t step = x.q[i] - x.zero;
        int64_t y = relu ? (step > 0 ? step : 0) : step * gate(kind, narrow(step, argument, SINGLE));
        out.q[i] = stored(narrow(y, by, rounding), out);
    }
    return recorded(out, site);
}

Value softcap(Value x, const char *site)
{
    Value out = new_value(x, site);
    Multiplier by = of_channel(multipliers(site, "output"), 0);
    Multiplier argument = of_channel(multipliers(site, "argument"), 0);
    for (size_t i = 0; i < count(x); i++)
        out.q[i] = stored(narrow(gate("tanh", narrow(x.q[i] - x.zero, argument, SINGLE)), by, rounding), out);
    return recorded(out, site);
}

Value add(Value x, Value y, const char *site)
{
    Value out = new_value(x, site);
    int64_t m_x = element(constant(site, "x.multiplier"), 0), m_y = element(constant(site, "y.multiplier"), 0);
    int t = (int)element(constant(site, "sum.shift"), 0);
    for (size_t i = 0; i < count(x); i++)
        out.q[i] = stored(rounding_shift((x.q[i] - x.zero) * m_x + (y.q[i] - y.zero) * m_y, t), out);
    return recorded(out, site);
}

Value mul(Value x, Value y, const char *site)
{
    Value out = new_value(x, site);
    Multiplier by = of_channel(multipliers(site, "output"), 0);
    for (size_t i = 0; i < count(x); i++)
        out.q[i] = stored(narrow((int64_t)(x.q[i] - x.zero) * (y.q[i] - y.zero), by, rounding), out);
    return recorded(out, site);
}

Value concat(Value x, Value y, const char *site)
{
    Value out = new_value((Value){NULL, x.batch, 0, x.rows, x.width + y.width, 0, 0}, site), parts[2] = {x, y};
    int at = 0;
    for (int part = 0; part < 2; at += parts[part++].width) {
        Value from = parts[part];
        size_t name_length = strcspn(site, "#");
        const char *named = text("%.*s.%c%s", (int)name_length, site, "xy"[part], site + name_length);
        int64_t m = element(constant(named, "x.multiplier"), 0);
        int t = (int)element(constant(named, "sum.shift"), 0);
        for (int row = 0; row < x.batch * x.rows; row++)
            for (int i = 0; i < from.width; i++)
                out.q[row * out.width + at + i] =
                    stored(rounding_shift((from.q[row * from.width + i] - from.zero) * m, t), out);
    }
    return recorded(out, site);
}

/* -- layout, and decisions: integers move ------------------------------------------------------- */

Value split_heads(Value x, int heads)
{
    Value out = {allocate(count(x) * 4), x.batch, heads, x.rows, x.width / heads, x.bits, x.zero};
    for (int i = 0; i < (int)count(x); i++) {
        int b = i / (x.rows * x.width), row = i / x.width % x.rows, head = i % x.width / out.width;
        out.q[((b * heads + head) * x.rows + row) * out.width + i % out.width] = x.q[i];
    }
    return out;
}

Value merge_heads(Value x)
{
    Value out = {allocate(count(x) * 4), x.batch, 0, x.rows, x.width * x.heads, x.bits, x.zero};
    for (int i = 0; i < (int)count(x); i++) {
        int b = i / (x.rows * out.width), row = i / out.width % x.rows, head = i % out.width / x.width;
        out.q[i] = x.q[((b * x.heads + head) * x.rows + row) * x.width + i % x.width];
    }
    return out;
}

static Value joined(Value x, int first, int n, Value more)
{
    Value out = x;
    out.rows = n + more.rows;
    out.q = allocate(count(out) * 4);
    for (int head = 0; head < x.batch * (x.heads ? x.heads : 1); head++) {
        int32_t *to = out.q + head * out.rows * x.width;
        memcpy(to, x.q + (head * x.rows + first) * x.width, (size_t)(n * x.width) * 4);
        if (more.rows)
            memcpy(to + n * x.width, more.q + head * more.rows * x.width, (size_t)(more.rows * x.width) * 4);
    }
    return out;
}

Value append(Value past, Value more)
{
    return past.q ? joined(past, 0, past.rows, more) : more;
}

Value take(Value x, int first, int n)
{
    return joined(x, first, n, (Value){0});
}

void argmax(Value x, int *token)
{
    for (int row = 0; row < x.batch * x.rows; row++) {
        const int32_t *q = x.q + row * x.width;
        token[row] = 0;
        for (int i = 1; i < x.width; i++)
            if (q[i] > q[token[row]]) token[row] = i;
    }
}

/* JSON and safetensors, in and out. Files are trusted to be what `mu-ref` wrote. */
#include <stdarg.h>

#include "port.h"

static void **blocks;  // all that was allocated, so that a leak checker finds it

void *allocate(size_t bytes) {
    void **block = calloc(1, 16 + bytes);
    if (!block) fail("there must be %zu more bytes of memory", bytes);
    *block = blocks;
    blocks = block;
    return block + 16 / sizeof *block;
}
Text text(Text format, ...) {
    char *made = allocate(128);
    va_list values;
    va_start(values, format);
    if (vsnprintf(made, 128, format, values) > 127) fail("a name is too long: %s", made);
    va_end(values);
    return made;
}

// -- JSON: no tree, only steps through the text -------------------------------------------------
static Text blank(Text at) { return at + strspn(at, " \n\r\t,:"); }
static Text string_end(Text at) {  // `at` is on the opening quote
    for (at++; *at != '"'; at += *at == '\\' ? 2 : 1)
        if (!*at) fail("JSON must close its strings");
    return at + 1;
}
static Text json_skip(Text at) {
    int depth = 0;
    do {
        if (!*at) fail("JSON must be whole");
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (*at == '"') at = string_end(at);
        else at += strchr("{[}]", *at) ? 1 : strcspn(at, ",]}");
        at = blank(at);
    } while (depth);
    return at;
}

// Step through an object: stands on the value of the next key; 0 at its end.
static int json_next(Text *at, char *key) {
    Text from = blank(**at == '{' ? *at + 1 : *at);
    if (*from != '"') return 0;
    *at = string_end(from);
    snprintf(key, 128, "%.*s", (int)(*at - from) - 2, from + 1);
    *at = blank(*at);
    return 1;
}

Text json_get(Text object, Text key) {
    char name[128];
    for (Text at = object; json_next(&at, name); at = json_skip(at))
        if (!strcmp(name, key)) return at;
    fail("JSON must name %s; it does not", key);
    return NULL;
}

int json_int(Text object, Text key) { return atoi(json_get(object, key)); }
int json_is(Text object, Text key, Text value) {  // a word, with quotes around it or without
    Text at = json_get(object, key);
    return !strncmp(at + (*at == '"'), value, strlen(value));
}

// -- safetensors: 8 bytes of header length, a JSON header, raw little-endian numbers -------------
Text read_bytes(Text path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail("%s must be a file that can be read", path);
    size_t size = (size_t)ftell(file);
    char *bytes = allocate(size + 8);
    rewind(file);
    if (fread(bytes, 1, size, file) != size) fail("%s must be read whole", path);
    fclose(file);
    return bytes;
}

File read_tensors(Text path) {
    Text bytes = read_bytes(path);
    const unsigned char *raw = (const unsigned char *)bytes;
    size_t length = (size_t)element(&(Tensor){.type = "U64", .data = raw}, 0);
    File file = {bytes + 8, allocate(4096 * sizeof(Tensor)), 0};
    char name[128];
    for (Text at = file.header; json_next(&at, name); at = json_skip(at)) {
        if (!strcmp(name, "__metadata__")) continue;
        if (file.n == 4096) fail("%s must hold at most 4096 tensors", path);
        Tensor *tensor = &file.tensors[file.n++];
        Text shape = json_get(at, "shape") + 1, offsets = json_get(at, "data_offsets") + 1;
        *tensor = (Tensor){text("%s", name), json_get(at, "dtype") + 1, 1, {0}, NULL};
        for (int i = 0; *shape != ']' && i < 4; shape = blank(shape + strcspn(shape, ",]")))
            tensor->n *= tensor->shape[i++] = atoi(shape);
        tensor->data = raw + 8 + length + atol(offsets);
    }
    return file;
}

const Tensor *find(const File *file, Text name) {
    for (int i = 0; i < file->n; i++)
        if (!strcmp(file->tensors[i].name, name)) return &file->tensors[i];
    return NULL;
}

int64_t element(const Tensor *tensor, int i) {
    int width = atoi(tensor->type + 1) / 8;
    const unsigned char *from = tensor->data + (size_t)i * (size_t)width;
    uint64_t bits = 0;
    for (int b = width - 1; b >= 0; b--) bits = bits << 8 | from[b];
    if (*tensor->type == 'I' && width < 8 && bits >> (8 * width - 1)) bits |= ~0ull << (8 * width);
    return (int64_t)bits;
}

Text metadata(const File *file, Text key) {
    Text value = json_get(json_get(file->header, "__metadata__"), key) + 1;
    Text end = string_end(value - 1) - 1;
    char *plain = allocate((size_t)(end - value) + 1), *to = plain;
    for (; value < end; value++) *to++ = *value == '\\' ? *++value : *value;
    return plain;
}

// -- what was recorded, in execution order ------------------------------------------------------
static struct Recorded { const int32_t *q; int bits, count; } recorded[16384];
static char header[16384 * 200];
static size_t n_recorded, header_length, n_bytes;

void record(Text key, int bits, const int32_t *q, int rank, const int *shape) {
    if (n_recorded == 16384) fail("a run must have at most 16384 tensors");
    char *to = header + header_length;
    int count = 1;
    to += sprintf(to, "%c\"%s\":{\"dtype\":\"I%d\",\"shape\":[", n_recorded ? ',' : '{', key, bits);
    for (int i = 0; i < rank; count *= shape[i++])
        to += sprintf(to, "%s%d", i ? "," : "", shape[i]);
    size_t end = n_bytes + (size_t)(count * bits / 8);
    to += sprintf(to, "],\"data_offsets\":[%zu,%zu]}", n_bytes, end);
    header_length = (size_t)(to - header), n_bytes = end;
    recorded[n_recorded++] = (struct Recorded){q, bits, count};
}

void write_recorded(Text path) {
    FILE *file = fopen(path, "wb");
    if (!file) fail("%s must be a file that can be written", path);
    header[header_length++] = '}';
    for (int i = 0; i < 8; i++) fputc((int)(header_length >> (8 * i) & 255), file);
    fwrite(header, 1, header_length, file);
    for (size_t r = 0; r < n_recorded; r++)
        for (int i = 0; i < recorded[r].count; i++)
            for (int b = 0; b < recorded[r].bits; b += 8)
                fputc((int)((uint32_t)recorded[r].q[i] >> b & 255), file);
    if (fclose(file)) fail("%s must be written whole", path);
}

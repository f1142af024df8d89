/* JSON and safetensors, in and out. Files are trusted to be what `mu-ref` wrote. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port.h"

/* -- memory: one list, freed at the end -------------------------------------------------------- */

typedef struct Block {
    struct Block *next;
    int64_t align;
} Block;

static Block *blocks;

void *allocate(size_t bytes)
{
    Block *block = calloc(1, sizeof(Block) + bytes);
    if (!block) fail("%zu bytes of memory must be there; they are not", bytes);
    block->next = blocks;
    blocks = block;
    return block + 1;
}

void release(void)
{
    while (blocks) {
        Block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

void fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    release();
    exit(2);
}

const char *text(const char *format, ...)
{
    char *made = allocate(256);
    va_list values;
    va_start(values, format);
    int n = vsnprintf(made, 256, format, values);
    va_end(values);
    if (n > 255) fail("a name must have at most 255 characters, got %s...", made);
    return made;
}

/* -- JSON: no tree, only steps through the text ------------------------------------------------ */

static const char *blank(const char *at)
{
    while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r') at++;
    return at;
}

static const char *string_end(const char *at)  /* on the opening quote */
{
    for (at++; *at != '"'; at += *at == '\\' ? 2 : 1)
        if (!*at) fail("JSON must close its strings");
    return at + 1;
}

const char *json_skip(const char *at)
{
    int depth = 0;
    at = blank(at);
    do {
        if (!*at) fail("JSON must be whole");
        if (*at == '"') {
            at = string_end(at);
        } else if (*at == '{' || *at == '[') {
            depth++, at++;
        } else if (*at == '}' || *at == ']') {
            depth--, at++;
        } else if (*at == ',' || *at == ':') {
            at++;
        } else {
            at += strcspn(at, ",:]} \n\t\r");
        }
        at = blank(at);
    } while (depth);
    return at;
}

const char *json_open(const char *object)
{
    object = blank(object);
    if (*object != '{') fail("JSON must hold an object here, got %.20s", object);
    return object + 1;
}

int json_key(const char **at, char *key, size_t size)
{
    const char *from = blank(*at);
    if (*from == ',') from = blank(from + 1);
    if (*from == '}') return 0;
    const char *end = string_end(from);
    snprintf(key, size, "%.*s", (int)(end - from) - 2, from + 1);
    *at = blank(blank(end) + 1);  /* behind the colon */
    return 1;
}

const char *json_get(const char *object, const char *key)
{
    char name[256];
    for (const char *at = json_open(object); json_key(&at, name, sizeof name); at = json_skip(at))
        if (!strcmp(name, key)) return at;
    return NULL;
}

static const char *needed(const char *object, const char *key)
{
    const char *value = json_get(object, key);
    if (!value) fail("JSON must name %s; it does not", key);
    return value;
}

int json_int(const char *object, const char *key)
{
    return atoi(needed(object, key));
}

int json_is(const char *object, const char *key, const char *value)
{
    return !strncmp(needed(object, key), value, strlen(value));
}

/* -- safetensors: 8 bytes of header length, a JSON header, raw little-endian numbers ------------ */

const char *read_text(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail("%s must be a file; it cannot be read", path);
    fseek(file, 0, SEEK_END);
    long n = ftell(file);
    rewind(file);
    char *bytes = allocate((size_t)n + 1);
    if (fread(bytes, 1, (size_t)n, file) != (size_t)n) fail("%s must be read whole", path);
    fclose(file);
    if (size) *size = (size_t)n;
    return bytes;
}

static int width_of(const char *type)
{
    return atoi(type + 1 + (*type == 'B')) / 8;  /* BF16, which no integer file has */
}

File read_tensors(const char *path)
{
    size_t size;
    uint64_t length = 0;
    const char *bytes = read_text(path, &size);
    for (int i = 7; i >= 0; i--) length = length << 8 | (unsigned char)bytes[size > 7 ? i : 0];
    if (size < 8 || length > size - 8) fail("%s must be a safetensors file", path);
    char *header = allocate(length + 1), name[256];
    memcpy(header, bytes + 8, length);
    File file = {NULL, 0, header};
    int n = 0;
    for (const char *at = json_open(header); json_key(&at, name, sizeof name); at = json_skip(at)) n++;
    file.tensors = allocate((size_t)(n + 1) * sizeof(Tensor));
    for (const char *at = json_open(header); json_key(&at, name, sizeof name); at = json_skip(at)) {
        if (!strcmp(name, "__metadata__")) continue;
        Tensor *tensor = &file.tensors[file.n++];
        tensor->name = (char *)text("%s", name);
        const char *type = json_get(at, "dtype") + 1, *shape = json_get(at, "shape") + 1;
        snprintf(tensor->type, sizeof tensor->type, "%.*s", (int)strcspn(type, "\""), type);
        tensor->count = 1;
        for (char *end; *(shape = blank(shape)) != ']'; shape = end + (*end == ',')) {
            if (tensor->rank == 4) fail("%s must have at most 4 axes", name);
            tensor->shape[tensor->rank] = (int)strtol(shape, &end, 10);
            tensor->count *= (size_t)tensor->shape[tensor->rank++];
        }
        size_t first = strtoull(json_get(at, "data_offsets") + 1, NULL, 10);
        if (first + tensor->count * (size_t)width_of(tensor->type) > size - 8 - length)
            fail("%s must hold all of %s; it is cut off", path, name);
        tensor->data = (const unsigned char *)bytes + 8 + length + first;
    }
    return file;
}

const Tensor *find(const File *file, const char *name)
{
    for (int i = 0; i < file->n; i++)
        if (!strcmp(file->tensors[i].name, name)) return &file->tensors[i];
    return NULL;
}

int64_t element(const Tensor *tensor, size_t i)
{
    uint64_t bits = 0;
    int width = width_of(tensor->type);
    for (int b = width - 1; b >= 0; b--) bits = bits << 8 | tensor->data[i * (size_t)width + (size_t)b];
    if (tensor->type[0] == 'I' && bits >> (8 * width - 1)) bits |= width == 8 ? 0 : ~0ull << (8 * width);
    return (int64_t)bits;
}

const char *metadata(const File *file, const char *key)
{
    const char *all = json_get(file->header, "__metadata__");
    const char *value = all ? json_get(all, key) : NULL;
    if (!value) return NULL;
    const char *end = string_end(value) - 1;
    char *plain = allocate((size_t)(end - value)), *to = plain;
    for (const char *from = value + 1; from < end; from++) *to++ = *from == '\\' ? *++from : *from;
    return plain;
}

/* -- what was recorded, in execution order ----------------------------------------------------- */

typedef struct {
    const char *key, *type;  /* I8, I16 or I32 */
    const int32_t *q;
    int rank, shape[4];
    size_t count;
} Recorded;

static Recorded recorded[16384];
static int n_recorded;

void record(const char *key, const char *type, const int32_t *q, int rank, const int *shape)
{
    if (n_recorded == 16384) fail("a run must have at most 16384 tensors");
    Recorded *entry = &recorded[n_recorded++];
    *entry = (Recorded){key, type, q, rank, {0}, 1};
    for (int i = 0; i < rank; i++) entry->count *= (size_t)(entry->shape[i] = shape[i]);
}

void write_recorded(const char *path)
{
    char *header = allocate((size_t)n_recorded * 400 + 16), *to = header;
    size_t offset = 0;
    to += sprintf(to, "{");
    for (Recorded *r = recorded; r < recorded + n_recorded; r++) {
        to += sprintf(to, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", r == recorded ? "" : ",", r->key, r->type);
        for (int i = 0; i < r->rank; i++) to += sprintf(to, "%s%d", i ? "," : "", r->shape[i]);
        size_t bytes = r->count * (size_t)width_of(r->type);
        to += sprintf(to, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
        offset += bytes;
    }
    to += sprintf(to, "}");
    FILE *file = fopen(path, "wb");
    if (!file) fail("%s must be a file that can be written; it cannot", path);
    for (int i = 0; i < 8; i++) fputc((int)((uint64_t)(to - header) >> (8 * i) & 255), file);
    fwrite(header, 1, (size_t)(to - header), file);
    for (Recorded *r = recorded; r < recorded + n_recorded; r++)
        for (size_t i = 0; i < r->count; i++)
            for (int b = 0; b < width_of(r->type); b++)
                fputc((int)((uint32_t)r->q[i] >> (8 * b) & 255), file);
    if (fclose(file)) fail("%s must be written whole", path);
}

/* Mu in integers, in plain C: written from docs/integer.md, compared by `mu-ref golden check`.
 *
 *   integers.c    rounding, tables, and the formulas of the non-linear functions
 *   operations.c  one function for each operation: reads a site's constants, records its result
 *   model.c       encoder, decoder, cache, drafter
 *   main.c        decoding, with drafts or without, and the command line
 *   files.c       JSON and safetensors, in and out
 *
 * No floating-point number is read, computed or written. `>>` of a negative number must be an
 * arithmetic shift, as it is with every compiler in use. Numbers in brackets: formulas of the page.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define fail(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(2))

typedef const char *Text;

typedef struct {
    Text name, type;  // I8, I16, I32, I64, U8, U64; F32 is never read
    int n, shape[4];  // elements
    const unsigned char *data;
} Tensor;
typedef struct { Text header; Tensor *tensors; int n; } File;  // the header is JSON
void *allocate(size_t bytes);  // zeroed, and never freed: a run is short
Text text(Text format, ...);   // makes a string
Text read_bytes(Text path);
File read_tensors(Text path);
const Tensor *find(const File *file, Text name);  // NULL if there is none
int64_t element(const Tensor *tensor, int i);
Text metadata(const File *file, Text key);
Text json_get(Text object, Text key);
int json_int(Text object, Text key);
int json_is(Text object, Text key, Text value);  // of one word: true, rms
void record(Text key, int bits, const int32_t *q, int rank, const int *shape);
void write_recorded(Text path);

typedef struct { int64_t m; int shift; } Multiplier;
int64_t rounding_shift(int64_t x, int t), saturate(int64_t x, int bits);
int64_t narrow(int64_t acc, Multiplier by), wide(int64_t acc, Multiplier by);
int64_t gate(Text kind, int64_t u), exp2_weight(int64_t u);
Multiplier norm_multiplier(int64_t square_sum, Multiplier by);
int center(int64_t *x, int n);
void turn(uint64_t phase, int64_t *cosine, int64_t *sine);

typedef struct {
    int32_t *q;              // [rows, width], or [rows, heads, width]
    int rows, heads, width;  // heads = 0: there is no such axis
    int bits, zero;
} Value;
typedef struct {
    int n, length, *tokens, *positions;  // slots; row of RoPE turns; of each slot
    char *valid;                         // of each slot
    Value *keys, *values;                // of each layer
} Cache;
extern Text call;                   // under which sites are recorded: "encode", "decode/3"
extern Text config;                 // JSON; its fields are read where they are used
extern File constants, weights[2];  // weights: of the model, and of a drafter
void load_weights(int i, Text path);
const Tensor *constant(Text site, Text role);
Value embed(const int *tokens, int n, Text site);
Value linear(Value x, Text site, Text weight_site);
Value norm(Value x, Text kind, Text site);
Value rope(Value x, const Cache *places, int first, Text stack, Text site);
Value matmul(Value a, Value b, int cyclic, int transpose, Text site);
Value softmax(Value x, Text mask, Text site);     // mask [rows, width]
Value activation(Value x, Text kind, Text site);  // kind "tanh" is the soft-cap
Value add(Value x, Value y, Text site), mul(Value x, Value y, Text site);
Value concat(Value x, Value y, Text site);
Value heads(Value x, int n);            // splits into n, or 0: merges
Value rows(Value x, int first, int n);  // n rows from `first` on
Value append(Value past, Value more);
int *argmax(Value x);  // of each row

Cache new_cache(int n_layers, int capacity);
Cache remember(const int *tokens, char *valid, int n);
Value decode(const Cache *memory, Cache *cache, const int *tokens, int n);
Value logits(Value hidden);
int draft(Value hidden, int *beam, int longest, int number);

/* Mu in integers, in plain C: written from docs/integer.md, compared by `mu-ref golden check`.
 *
 *   files.c       JSON and safetensors, in and out
 *   integers.c    rounding, tables, and the formulas of the non-linear functions
 *   operations.c  one function for each operation: reads a site's constants, records its result
 *   model.c       encoder, decoder, cache
 *   draft.c       the drafter, and decoding with drafts
 *   main.c        decoding token by token, and the command line
 *
 * No floating-point number is read, computed or written. `>>` of a negative number must be an
 * arithmetic shift, as every compiler in use makes it.
 */
#ifndef PORT_H
#define PORT_H

#include <stddef.h>
#include <stdint.h>

/* -- files.c ----------------------------------------------------------------------------------- */

typedef struct {
    char *name;
    char type[8];  /* I8, I16, I32, I64, U8 or U64 */
    size_t count;
    int rank, shape[4];
    const unsigned char *data;
} Tensor;

typedef struct {
    Tensor *tensors;
    int n;
    const char *header;  /* JSON */
} File;

void *allocate(size_t bytes);  /* zeroed; freed all at once by `release` */
void release(void);
void fail(const char *format, ...);  /* prints one line and ends the program */
const char *text(const char *format, ...);  /* a formatted string */

const char *read_text(const char *path, size_t *size);
File read_tensors(const char *path);
const Tensor *find(const File *file, const char *name);  /* NULL if there is none */
int64_t element(const Tensor *tensor, size_t i);
const char *metadata(const File *file, const char *key);  /* unescaped; NULL if there is none */

const char *json_open(const char *object);  /* for `json_key`; on '{' of an object */
int json_key(const char **at, char *key, size_t size);  /* stands on the value then; 0 at the end */
const char *json_skip(const char *value);
const char *json_get(const char *object, const char *key);
int json_int(const char *object, const char *key);
int json_is(const char *object, const char *key, const char *value);  /* as written: true, "rms" */

void record(const char *key, const char *type, const int32_t *q, int rank, const int *shape);
void write_recorded(const char *path);

/* -- integers.c -------------------------------------------------------------------------------- */

typedef struct {
    int64_t m;
    int shift;
} Multiplier;

typedef enum { SINGLE, HALF_EVEN, DOUBLE } Rounding;

int64_t rounding_shift(int64_t x, int t);
int64_t narrow(int64_t acc, Multiplier by, Rounding rounding);        /* (5.3) */
int64_t wide(int64_t acc, Multiplier by);                             /* (5.4) */
int64_t saturate(int64_t x, int bits);
int64_t gate(const char *kind, int64_t u);                            /* of tanh too */
int64_t exp2_weight(int64_t u);
Multiplier norm_multiplier(int64_t square_sum, Multiplier by);
int center(int64_t *x, int n);                                        /* returns v */
void turn(uint64_t phase, int64_t *cosine, int64_t *sine);

/* -- operations.c ------------------------------------------------------------------------------ */

typedef struct {
    int32_t *q;  /* [batch, rows, width], or with heads [batch, heads, rows, width] */
    int batch, heads, rows, width;  /* heads = 0: there is no such axis */
    int bits, zero;
} Value;

typedef struct {  /* where the tokens of a pass stand */
    const int *positions;   /* [batch, rows] */
    const int *turn_rows;   /* [batch], row of `turns` */
    const Tensor *turns;    /* [lengths, d_head / 2] */
} Places;

extern const char *call;  /* what sites are recorded under: "encode", "decode/3" */

void load_constants(const char *path);
void load_weights(const char *path);
const File *constants_file(void);
const File *weights_file(int i);
void decided(const char *name, const int *tokens, int rank, int n0, int n1, int n2);

Value embed(const int *tokens, int batch, int rows, const char *site);
Value linear(Value x, const char *site, const char *weight_site);
Value norm(Value x, const char *kind, const char *site);
Value rope(Value x, Places places, const char *site);
Value matmul(Value a, Value b, const int *head_of, int transpose, const char *site);
Value softmax(Value x, const unsigned char *mask, const char *site);  /* [batch, rows, width] */
Value activation(Value x, const char *kind, const char *site);
Value softcap(Value x, const char *site);
Value add(Value x, Value y, const char *site);
Value mul(Value x, Value y, const char *site);
Value concat(Value x, Value y, const char *site);
Value split_heads(Value x, int heads);
Value merge_heads(Value x);
Value append(Value past, Value more);        /* along rows; past.q NULL: more alone */
Value take(Value x, int first, int n);       /* rows first..first + n */
void argmax(Value x, int *token);            /* [batch, rows]; the lowest index of equals */

/* -- model.c ----------------------------------------------------------------------------------- */

typedef struct {
    char name[8], norm_kind[16], activation[16];
    int n_layers, n_heads, n_kv_heads, base_len;
    int softcap, dual, embed_norm, gated, centre, padded, window;
    int windowed[256], head_of[256];
    const Tensor *turns;
} Stack;

typedef struct {
    Stack encoder, decoder;
    int vocab_size, pad, eos, shared_embedding, tied_head, final_softcap, mask_decoder_pads;
} Model;

typedef struct {
    int batch, slots, capacity;
    int *tokens, *positions, *turn_rows;  /* [batch, capacity]; turn_rows [batch] */
    unsigned char *valid;
    Value *keys, *values;  /* of each layer */
} Cache;

typedef struct {
    int n_source;
    const unsigned char *valid;  /* [batch, n_source] */
    Value *keys, *values;  /* of each layer of the decoder */
} Memory;

typedef struct {
    int limit, draft_len;  /* of the manifest */
    int batch, n_prompt;
    const int *prompt;
} Request;

Model read_model(void);
Value embed_tokens(const Model *model, const Stack *stack, const int *tokens, int batch, int rows);
Memory remember(const Model *model, const int *tokens, const unsigned char *valid, int batch, int n);
Cache empty_cache(const Model *model, int batch, int capacity);
Value decode(const Model *model, const Memory *memory, Cache *cache, const int *tokens,
             const unsigned char *valid, int n);  /* hidden states of the n new tokens */
Value logits(const Model *model, Value hidden);
int valid_token(const Model *model, int token);

/* -- draft.c ----------------------------------------------------------------------------------- */

void decode_with_drafts(const Model *model, const Memory *memory, const Request *request);

#endif

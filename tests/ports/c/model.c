/* Encoder, decoder and cache: the graph of docs/integer.md, in its order. */
#include <stdio.h>
#include <string.h>

#include "port.h"

/* -- configuration ------------------------------------------------------------------------------ */

static void read_text_field(const char *object, const char *key, char *to, size_t size)
{
    const char *value = json_get(object, key) + 1;
    snprintf(to, size, "%.*s", (int)strcspn(value, "\""), value);
}

static Stack read_stack(const char *config, const char *name)
{
    const char *at = json_get(config, name);
    Stack stack = {0};
    snprintf(stack.name, sizeof stack.name, "%s", name);
    read_text_field(at, "norm_kind", stack.norm_kind, sizeof stack.norm_kind);
    read_text_field(at, "activation", stack.activation, sizeof stack.activation);
    stack.n_layers = json_int(at, "n_layers");
    stack.n_heads = json_int(at, "n_heads");
    stack.n_kv_heads = json_int(at, "n_kv_heads");
    stack.base_len = json_int(at, "rope_base_len");
    if (stack.n_layers > 256 || stack.n_heads > 256) fail("a stack must have at most 256 layers and heads");
    stack.softcap = !json_is(at, "attention_softcap", "null");
    stack.dual = json_is(at, "norm_placement", "\"dual\"");
    stack.embed_norm = json_is(at, "embed_norm", "true");
    stack.gated = json_is(at, "gated", "true");
    stack.centre = json_is(at, "rope_origin", "\"centre\"");
    stack.padded = json_is(at, "rope_length", "\"padded\"");
    stack.window = json_is(at, "window", "null") ? 0 : json_int(at, "window");
    const char *flag = json_get(at, "windowed_layers") + 1;
    for (int layer = 0; layer < stack.n_layers; layer++, flag += strcspn(flag, ",]") + 1)
        stack.windowed[layer] = flag[strspn(flag, " \n")] == 't';
    int cyclic = json_is(at, "kv_head_map", "\"cyclic\""), group = stack.n_heads / stack.n_kv_heads;
    for (int h = 0; h < stack.n_heads; h++) stack.head_of[h] = cyclic ? h % stack.n_kv_heads : h / group;
    stack.turns = find(constants_file(), text("%s.rope_turns", name));
    if (!stack.turns) fail("constants must hold the RoPE turns of the %s", name);
    return stack;
}

Model read_model(void)
{
    const char *config = metadata(weights_file(0), "config");
    if (!config) fail("the weight file must hold a configuration");
    Model model = {.encoder = read_stack(config, "encoder"), .decoder = read_stack(config, "decoder")};
    model.vocab_size = json_int(config, "vocab_size");
    model.pad = json_int(config, "pad_id");
    model.eos = json_int(config, "eos_id");
    model.shared_embedding = json_is(config, "shared_embedding", "true");
    model.tied_head = json_is(config, "tied_head", "true");
    model.final_softcap = !json_is(config, "final_softcap", "null");
    model.mask_decoder_pads = json_is(config, "mask_decoder_pads", "true");
    return model;
}

int valid_token(const Model *model, int token)
{
    return !model->mask_decoder_pads || token != model->pad;
}

/* -- positions and masks ------------------------------------------------------------------------ */

/* Number the tokens of each row, and find the row of turns that belongs to its length. */
static void place(const Stack *stack, const unsigned char *valid, int batch, int n, int stride,
                  int *positions, int *turn_rows)
{
    int half_turns = stack->turns->shape[stack->turns->rank - 1];
    int longest = (int)(stack->turns->count / (size_t)half_turns);  /* 1 without NTK scaling */
    for (int b = 0; b < batch; b++) {
        int length = 0;
        for (int i = 0; i < n; i++) {
            length += valid[b * stride + i];
            positions[b * stride + i] = stack->padded ? i : length ? length - 1 : 0;
        }
        if (stack->padded) length = n;
        for (int i = 0; stack->centre && i < n; i++) positions[b * stride + i] -= (length - 1) / 2;
        turn_rows[b] = longest > 1 && length > stack->base_len ? length - stack->base_len : 0;
        if (turn_rows[b] >= longest) fail("constants must hold the turns of %d tokens", length);
    }
}

static unsigned char *see(const int *queries, int n_queries, const int *keys, const unsigned char *valid,
                          int batch, int n_keys, int stride, int causal, int window)
{
    unsigned char *mask = allocate((size_t)(batch * n_queries * n_keys));
    for (int b = 0; b < batch; b++)
        for (int i = 0; i < n_queries; i++)
            for (int j = 0; j < n_keys; j++) {
                int distance = queries[b * n_queries + i] - keys[b * stride + j];
                int near = causal ? distance < window : distance <= window && -distance <= window;
                mask[(b * n_queries + i) * n_keys + j] =
                    valid[b * stride + j] && (!causal || distance >= 0) && (!window || near);
            }
    return mask;
}

/* -- blocks ------------------------------------------------------------------------------------- */

Value embed_tokens(const Model *model, const Stack *stack, const int *tokens, int batch, int rows)
{
    Value x = embed(tokens, batch, rows, model->shared_embedding ? "embedding" : text("%s.embedding", stack->name));
    return stack->embed_norm ? norm(x, stack->norm_kind, text("%s.embed_norm", stack->name)) : x;
}

static Value before(const Stack *stack, Value x, const char *site)
{
    return norm(x, stack->norm_kind, text("%s.pre_norm", site));
}

static Value after(const Stack *stack, Value x, Value update, const char *site)
{
    if (stack->dual) update = norm(update, stack->norm_kind, text("%s.post_norm", site));
    return add(x, update, text("%s.residual", site));
}

static Value project(Value x, const char *site, const char *part)
{
    const char *name = text("%s.%s", site, part);
    return linear(x, name, name);
}

static Value attend(const Stack *stack, Value q, Value k, Value v, const unsigned char *mask, const char *site)
{
    Value scores = matmul(q, k, stack->head_of, 1, text("%s.scores", site));
    if (stack->softcap) scores = softcap(scores, text("%s.softcap", site));
    Value weights = softmax(scores, mask, text("%s.softmax", site));
    Value mixed = matmul(weights, v, stack->head_of, 0, text("%s.mix", site));
    return project(merge_heads(mixed), site, "o");
}

/* keys and values are those of the cache; the new ones join them */
static Value self_attention(const Stack *stack, Value x, Places places, const unsigned char *mask,
                            Value *keys, Value *values, const char *site)
{
    Value h = before(stack, x, site);
    Value q = split_heads(project(h, site, "q"), stack->n_heads);
    Value k = split_heads(project(h, site, "k"), stack->n_kv_heads);
    Value v = split_heads(project(h, site, "v"), stack->n_kv_heads);
    q = rope(q, places, text("%s.q_rope", site));
    k = rope(k, places, text("%s.k_rope", site));
    *keys = append(*keys, k);
    *values = append(*values, v);
    return after(stack, x, attend(stack, q, *keys, *values, mask, site), site);
}

static Value mlp(const Stack *stack, Value x, const char *site)
{
    Value h = before(stack, x, site);
    Value inner = project(h, site, "up");
    if (stack->gated) {
        Value open = activation(project(h, site, "gate"), stack->activation, text("%s.activation", site));
        inner = mul(open, inner, text("%s.gated", site));
    } else {
        inner = activation(inner, stack->activation, text("%s.activation", site));
    }
    return after(stack, x, project(inner, site, "down"), site);
}

/* -- encoder ------------------------------------------------------------------------------------ */

Memory remember(const Model *model, const int *tokens, const unsigned char *valid, int batch, int n)
{
    const Stack *stack = &model->encoder;
    int *positions = allocate((size_t)(batch * n) * 4), *turn_rows = allocate((size_t)batch * 4);
    place(stack, valid, batch, n, n, positions, turn_rows);
    Places places = {positions, turn_rows, stack->turns};
    call = "encode";
    Value x = embed_tokens(model, stack, tokens, batch, n);
    for (int layer = 0; layer < stack->n_layers; layer++) {
        Value keys = {0}, values = {0};
        int window = stack->windowed[layer] ? stack->window : 0;
        const unsigned char *mask = see(positions, n, positions, valid, batch, n, n, 0, window);
        x = self_attention(stack, x, places, mask, &keys, &values, text("encoder.%d.self_attention", layer));
        x = mlp(stack, x, text("encoder.%d.mlp", layer));
    }
    x = norm(x, stack->norm_kind, "encoder.final_norm");
    stack = &model->decoder;
    size_t size = (size_t)stack->n_layers * sizeof(Value);
    Memory memory = {n, valid, allocate(size), allocate(size)};
    call = "remember";
    for (int layer = 0; layer < stack->n_layers; layer++) {
        const char *site = text("decoder.%d.cross_attention", layer);
        memory.keys[layer] = split_heads(project(x, site, "k"), stack->n_kv_heads);
        memory.values[layer] = split_heads(project(x, site, "v"), stack->n_kv_heads);
    }
    return memory;
}

/* -- decoder ------------------------------------------------------------------------------------ */

Cache empty_cache(const Model *model, int batch, int capacity)
{
    size_t slots = (size_t)(batch * capacity), size = (size_t)model->decoder.n_layers * sizeof(Value);
    Cache cache = {batch, 0, capacity, allocate(slots * 4), allocate(slots * 4), allocate((size_t)batch * 4),
                   allocate(slots), allocate(size), allocate(size)};
    return cache;
}

Value decode(const Model *model, const Memory *memory, Cache *cache, const int *tokens,
             const unsigned char *valid, int n)
{
    const Stack *stack = &model->decoder;
    int batch = cache->batch, first = cache->slots, stride = cache->capacity;
    for (int b = 0; b < batch; b++)
        for (int i = 0; i < n; i++) {
            cache->tokens[b * stride + first + i] = tokens[b * n + i];
            cache->valid[b * stride + first + i] = valid[b * n + i];
        }
    cache->slots += n;
    int *turn_rows = allocate((size_t)batch * 4);
    place(stack, cache->valid, batch, cache->slots, stride, cache->positions, turn_rows);
    if (memcmp(turn_rows, cache->turn_rows, (size_t)batch * 4)) {  /* another theta: no key fits */
        memset(cache->keys, 0, (size_t)stack->n_layers * sizeof(Value));
        memset(cache->values, 0, (size_t)stack->n_layers * sizeof(Value));
        first = 0;
    }
    cache->turn_rows = turn_rows;
    int rows = cache->slots - first;
    int *now = allocate((size_t)(batch * rows) * 4), *standing = allocate((size_t)(batch * rows) * 4);
    for (int i = 0; i < batch * rows; i++) {
        now[i] = cache->tokens[i / rows * stride + first + i % rows];
        standing[i] = cache->positions[i / rows * stride + first + i % rows];
    }
    Places places = {standing, turn_rows, stack->turns};
    unsigned char *source = allocate((size_t)(batch * rows * memory->n_source));
    for (int i = 0; i < batch * rows; i++)
        memcpy(source + i * memory->n_source, memory->valid + i / rows * memory->n_source, (size_t)memory->n_source);
    Value x = embed_tokens(model, stack, now, batch, rows);
    for (int layer = 0; layer < stack->n_layers; layer++) {
        int window = stack->windowed[layer] ? stack->window : 0;
        const unsigned char *mask =
            see(standing, rows, cache->positions, cache->valid, batch, cache->slots, stride, 1, window);
        x = self_attention(stack, x, places, mask, &cache->keys[layer], &cache->values[layer],
                           text("decoder.%d.self_attention", layer));
        const char *site = text("decoder.%d.cross_attention", layer);
        Value q = split_heads(project(before(stack, x, site), site, "q"), stack->n_heads);
        x = after(stack, x, attend(stack, q, memory->keys[layer], memory->values[layer], source, site), site);
        x = mlp(stack, x, text("decoder.%d.mlp", layer));
    }
    return take(norm(x, stack->norm_kind, "decoder.final_norm"), rows - n, n);
}

Value logits(const Model *model, Value hidden)
{
    const char *embedding = model->shared_embedding ? "embedding" : "decoder.embedding";
    Value scores = linear(hidden, "head", model->tied_head ? embedding : "head");
    return model->final_softcap ? softcap(scores, "head.softcap") : scores;
}

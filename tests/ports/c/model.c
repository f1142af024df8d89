/* Encoder, decoder, cache and drafter: the graph of docs/integer.md, in its order. */
#include "port.h"

// -- the configuration of a stack, "encoder" or "decoder" -----------------------------------------
static Text field(Text stack, Text key) { return json_get(json_get(config, stack), key); }
static int number(Text stack, Text key) { return atoi(field(stack, key)); }
static int is(Text stack, Text key, Text as) { return json_is(json_get(config, stack), key, as); }
static Text word(Text stack, Text key) {
    Text value = field(stack, key) + 1;
    return text("%.*s", (int)strcspn(value, "\""), value);
}
static int window_of(Text stack, int layer) {  // 0: sees everything
    Text flag = field(stack, "windowed_layers") + 1;
    while (layer--) flag += strcspn(flag, ",") + 2;
    return *flag == 't' ? number(stack, "window") : 0;
}

// -- positions and masks -------------------------------------------------------------------------
static void place(Text stack, Cache *cache) {
    int padded = is(stack, "rope_length", "padded"), centre = is(stack, "rope_origin", "centre");
    int length = 0, n_lengths = constant(stack, "rope_turns")->shape[0];
    for (int i = 0; i < cache->n; i++) {
        length += padded || cache->valid[i];
        cache->positions[i] = length ? length - 1 : 0;
    }
    for (int i = 0; centre && i < cache->n; i++) cache->positions[i] -= (length - 1) / 2;
    int past = length - number(stack, "rope_base_len");
    cache->length = past > 0 && n_lengths > 1 ? past : 0;
    if (cache->length >= n_lengths) fail("constants must turn %d tokens", length);
}

static Text see(const Cache *queries, int first, const Cache *keys, int causal, int window) {
    int n = queries->n - first;
    char *mask = allocate((size_t)(n * keys->n));
    for (int i = 0; i < n * keys->n; i++) {
        int key = i % keys->n;
        int distance = queries->positions[first + i / keys->n] - keys->positions[key];
        int near = causal ? distance < window : distance <= window && -distance <= window;
        mask[i] = keys->valid[key] && (!causal || distance >= 0) && (!window || near);
    }
    return mask;
}

// -- blocks --------------------------------------------------------------------------------------
static Value normed(Text stack, Value x, Text site, Text part) {
    return norm(x, word(stack, "norm_kind"), text("%s.%s", site, part));
}
static Value project(Value x, Text site, Text part) {
    return linear(x, text("%s.%s", site, part), text("%s.%s", site, part));
}
static Text embedding_of(Text stack) {
    return json_is(config, "shared_embedding", "true") ? "embedding" : text("%s.embedding", stack);
}
static Value embed_tokens(Text stack, const int *tokens, int n) {
    Value x = embed(tokens, n, embedding_of(stack));
    return is(stack, "embed_norm", "true") ? normed(stack, x, stack, "embed_norm") : x;
}
static Value residual(Text stack, Value x, Value update, Text site) {
    if (is(stack, "norm_placement", "dual")) update = normed(stack, update, site, "post_norm");
    return add(x, update, text("%s.residual", site));
}

static Value attend(Text stack, Value q, Value k, Value v, Text mask, Text site) {
    int cyclic = is(stack, "kv_head_map", "cyclic");
    Value scores = matmul(q, k, cyclic, 1, text("%s.scores", site));
    if (!is(stack, "attention_softcap", "null"))
        scores = activation(scores, "tanh", text("%s.softcap", site));
    Value shares = softmax(scores, mask, text("%s.softmax", site));
    Value mixed = matmul(shares, v, cyclic, 0, text("%s.mix", site));
    return project(heads(mixed, 0), site, "o");
}

static Value self_attention(Text stack, Value x, Cache *cache, int first, int layer) {
    Text site = text("%s.%d.self_attention", stack, layer);
    int causal = *stack == 'd', n_kv_heads = number(stack, "n_kv_heads");
    Value h = normed(stack, x, site, "pre_norm");
    Value q = heads(project(h, site, "q"), number(stack, "n_heads"));
    Value k = heads(project(h, site, "k"), n_kv_heads);
    Value v = heads(project(h, site, "v"), n_kv_heads);
    q = rope(q, cache, first, stack, text("%s.q_rope", site));
    k = rope(k, cache, first, stack, text("%s.k_rope", site));
    k = cache->keys[layer] = append(cache->keys[layer], k);
    v = cache->values[layer] = append(cache->values[layer], v);
    Text mask = see(cache, first, cache, causal, window_of(stack, layer));
    return residual(stack, x, attend(stack, q, k, v, mask, site), site);
}

static Value cross_attention(Text stack, Value x, const Cache *memory, Text mask, int layer) {
    Text site = text("%s.%d.cross_attention", stack, layer);
    Value q = project(normed(stack, x, site, "pre_norm"), site, "q");
    Value k = memory->keys[layer], v = memory->values[layer];
    q = heads(q, number(stack, "n_heads"));
    return residual(stack, x, attend(stack, q, k, v, mask, site), site);
}

static Value mlp(Text stack, Value x, int layer) {
    Text site = text("%s.%d.mlp", stack, layer);
    int gated = is(stack, "gated", "true");
    Value h = normed(stack, x, site, "pre_norm"), up = project(h, site, "up");
    Value inner = gated ? project(h, site, "gate") : up;
    inner = activation(inner, word(stack, "activation"), text("%s.activation", site));
    if (gated) inner = mul(inner, up, text("%s.gated", site));
    return residual(stack, x, project(inner, site, "down"), site);
}

// -- encoder and decoder -------------------------------------------------------------------------
Cache new_cache(int n_layers, int capacity) {
    size_t slots = (size_t)capacity * 4, layers = (size_t)n_layers * sizeof(Value);
    return (Cache){0, 0, allocate(slots), allocate(slots), allocate(slots),
                   allocate(layers), allocate(layers)};
}

Cache remember(const int *tokens, char *valid, int n) {
    Cache own = new_cache(number("encoder", "n_layers"), n);
    Cache memory = new_cache(number("decoder", "n_layers"), n);
    own.n = memory.n = n, own.valid = memory.valid = valid;
    call = "encode";
    place("encoder", &own);
    Value x = embed_tokens("encoder", tokens, n);
    for (int layer = 0; layer < number("encoder", "n_layers"); layer++)
        x = mlp("encoder", self_attention("encoder", x, &own, 0, layer), layer);
    x = normed("encoder", x, "encoder", "final_norm");
    call = "remember";
    for (int layer = 0; layer < number("decoder", "n_layers"); layer++) {
        int n_heads = number("decoder", "n_kv_heads");
        Text site = text("decoder.%d.cross_attention", layer);
        memory.keys[layer] = heads(project(x, site, "k"), n_heads);
        memory.values[layer] = heads(project(x, site, "v"), n_heads);
    }
    return memory;
}

Value decode(const Cache *memory, Cache *cache, const int *tokens, int n) {
    int first = cache->n, length = cache->length, pad = json_int(config, "pad_id");
    int hides = json_is(config, "mask_decoder_pads", "true");
    for (int i = first; i < first + n; i++) {
        cache->tokens[i] = *tokens++;
        cache->valid[i] = !first || !hides || cache->tokens[i] != pad;
    }
    cache->n += n;
    place("decoder", cache);
    if (length != cache->length)  // another theta: no key fits, so all tokens are computed again
        for (int layer = first = 0; layer < number("decoder", "n_layers"); layer++)
            cache->keys[layer].q = cache->values[layer].q = NULL;
    Text mask = see(cache, first, memory, 0, 0);
    Value x = embed_tokens("decoder", cache->tokens + first, cache->n - first);
    for (int layer = 0; layer < number("decoder", "n_layers"); layer++) {
        x = self_attention("decoder", x, cache, first, layer);
        x = mlp("decoder", cross_attention("decoder", x, memory, mask, layer), layer);
    }
    return rows(normed("decoder", x, "decoder", "final_norm"), cache->n - first - n, n);
}

Value logits(Value hidden) {
    Text weight_site = json_is(config, "tied_head", "true") ? embedding_of("decoder") : "head";
    Value scores = linear(hidden, "head", weight_site);
    if (json_is(config, "final_softcap", "null")) return scores;
    return activation(scores, "tanh", "head.softcap");
}

// -- drafter -------------------------------------------------------------------------------------
static Value advance(int rnn, Value embedding, Value state, int i) {
    if (!rnn && !i) return embedding;
    if (!rnn) return add(embedding, state, i > 1 ? "drafter.state_sum#2" : "drafter.state_sum");
    Value x = project(embedding, "drafter", "rnn_w");
    if (i) x = add(x, project(state, "drafter", "rnn_u"), "drafter.rnn_sum");
    return activation(x, "silu", i ? "drafter.state#2" : "drafter.state");
}

/* Fill beam[1..]; beam[0] is the model's own. One beam has no rival: the likeliest token each time,
 * and no probability. Wider searches compare sums of log probabilities, in floats, on the host. */
int draft(Value hidden, int *beam, int longest, int number) {
    Text drafter = metadata(&weights[1], "drafter");
    int rnn = json_is(drafter, "rnn", "true");
    Value state = {0};
    for (int i = 0; i < longest; i++) {
        call = text("draft/%d/%d", number, i);
        state = advance(rnn, embed_tokens("decoder", beam + i, 1), state, i);
        Value y = concat(hidden, state, !rnn && i ? "drafter.concat#2" : "drafter.concat");
        if (json_int(drafter, "d_exit") != y.width) y = project(y, "drafter", "input_proj");
        for (int block = 0; block < json_int(drafter, "n_blocks"); block++) {
            Text site = text("drafter.%d", block);
            Value change = activation(linear(y, site, site), "silu", text("%s.activation", site));
            y = add(y, change, text("%s.residual", site));
        }
        beam[i + 1] = *argmax(project(y, "drafter", "head"));
        if (beam[i + 1] == json_int(config, "eos_id")) return i + 2;
    }
    return longest + 1;
}

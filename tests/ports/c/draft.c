/* The drafter, and decoding with drafts of one beam in a batch of one.
 *
 * One beam has no rival, so the drafter's argmax chooses it and no probability is needed. Wider
 * searches compare sums of log probabilities, in floats, on the host; what they choose decides how
 * fast the model writes, never what.
 */
#include "port.h"

typedef struct {
    int rnn, n_blocks, input_proj;
} Drafter;

static Drafter read_drafter(void)
{
    const char *config = metadata(weights_file(1), "drafter");
    if (!config) fail("the drafter's file must hold a configuration");
    return (Drafter){json_is(config, "rnn", "true"), json_int(config, "n_blocks"),
                     json_int(config, "d_exit") != 2 * json_int(config, "d_model")};
}

/* `#2` is the second set of constants of a site that reads values of two scales. */
static Value advance(const Drafter *drafter, Value embedding, Value state, int i)
{
    if (!drafter->rnn) return i ? add(embedding, state, i > 1 ? "drafter.state_sum#2" : "drafter.state_sum") : embedding;
    Value x = linear(embedding, "drafter.rnn_w", "drafter.rnn_w");
    if (!i) return activation(x, "silu", "drafter.state");
    x = add(x, linear(state, "drafter.rnn_u", "drafter.rnn_u"), "drafter.rnn_sum");
    return activation(x, "silu", "drafter.state#2");
}

static Value scores(const Drafter *drafter, Value hidden, Value state, int i)
{
    Value y = concat(hidden, state, !drafter->rnn && i ? "drafter.concat#2" : "drafter.concat");
    if (drafter->input_proj) y = linear(y, "drafter.input_proj", "drafter.input_proj");
    for (int block = 0; block < drafter->n_blocks; block++) {
        const char *site = text("drafter.%d", block);
        Value change = activation(linear(y, site, site), "silu", text("%s.activation", site));
        y = add(y, change, text("%s.residual", site));
    }
    return linear(y, "drafter.head", "drafter.head");
}

/* Fill beam[1..]; beam[0] is the model's own. Returns the number of tokens in the beam. */
static int draft(const Model *model, const Drafter *drafter, Value hidden, int *beam, int longest, int number)
{
    Value state = {0};
    for (int i = 0; i < longest; i++) {
        call = text("draft/%d/%d", number, i);
        state = advance(drafter, embed_tokens(model, &model->decoder, beam + i, 1, 1), state, i);
        argmax(scores(drafter, hidden, state, i), beam + i + 1);
        if (beam[i + 1] == model->eos) return i + 2;
    }
    return longest + 1;
}

static int shorter(int a, int b)
{
    return a < b ? a : b;
}

/* With NTK scaling, tokens verified together must turn alike: none past the base length. */
static int room(const Stack *stack, const Cache *cache)
{
    int length = 0, half = stack->turns->shape[stack->turns->rank - 1];
    if (stack->turns->count == (size_t)half) return 1 << 30;
    for (int i = 0; i < cache->slots; i++) length += stack->padded || cache->valid[i];
    return stack->base_len > length + 1 ? stack->base_len - length : 1;
}

void decode_with_drafts(const Model *model, const Memory *memory, const Request *request)
{
    if (request->batch != 1) fail("drafts must be of one row, got %d", request->batch);
    Drafter drafter = read_drafter();
    int n_new = request->n_prompt, left = request->limit, n_drafts = 0, ended = 0;
    int capacity = n_new + left + request->draft_len + 2;
    Cache cache = empty_cache(model, 1, capacity);
    int *beam = allocate((size_t)capacity * 4), *written = allocate((size_t)capacity * 4);
    unsigned char *valid = allocate((size_t)capacity);
    for (int i = 0; i < n_new; i++) beam[i] = request->prompt[i], valid[i] = 1;
    Value hidden = {0};
    for (int step = 0; left > 0 && !ended; step++) {
        int longest = step ? shorter(request->draft_len, shorter(left, room(&model->decoder, &cache)) - 1) : 0;
        call = text("decode/%d", step);
        if (longest > 0) {
            n_new = draft(model, &drafter, hidden, beam, longest, ++n_drafts);
            int *kept = allocate((size_t)n_new * 4);
            for (int i = 0; i < n_new; i++) kept[i] = beam[i];
            call = text("draft/%d", n_drafts);
            decided("beams", kept, 3, 1, 1, n_new);
            call = text("verify/%d", n_drafts);
        }
        for (int i = 0; step && i < n_new; i++) valid[i] = (unsigned char)valid_token(model, beam[i]);
        Value states = decode(model, memory, &cache, beam, valid, n_new);
        int n = 1;  /* tokens that this pass writes: the drafts it agrees with, and one of its own */
        if (step) {
            argmax(logits(model, states), written);
            while (n < n_new && beam[n] == written[n - 1]) n++;
            cache.slots -= n_new - n;
            for (int layer = 0; layer < model->decoder.n_layers; layer++) {
                cache.keys[layer] = take(cache.keys[layer], 0, cache.slots);
                cache.values[layer] = take(cache.values[layer], 0, cache.slots);
            }
            hidden = take(states, n - 1, 1);
        } else {
            hidden = take(states, n_new - 1, 1);  /* of the prompt, the last token's alone */
            argmax(logits(model, hidden), written);
        }
        beam[0] = written[n - 1];
        n = shorter(n, left);
        int *out = allocate((size_t)n * 4), n_out = 0;
        while (n_out < n && !ended) ended = (out[n_out] = written[n_out]) == model->eos, n_out++;
        decided("written", out, 2, 1, n_out, 0);
        left -= n_out;
        n_new = 1;
    }
}

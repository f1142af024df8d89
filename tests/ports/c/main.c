/* mu-port GOLDEN MODEL OUT [DRAFTER]
 *
 * Runs what the golden folder GOLDEN has run, on the weights MODEL, and writes every tensor to the
 * safetensors file OUT. Of the folder it reads the constants, the tokens, and from the manifest how
 * far to go; with DRAFTER it writes with drafts. The last line printed is the tokens.
 */
#include <stdio.h>
#include <string.h>

#include "port.h"

static const int *read_tokens(const File *file, const char *name, int *batch, int *n)
{
    const Tensor *tensor = find(file, name);
    if (!tensor) fail("tensors must hold %s; they do not", name);
    *batch = tensor->shape[0], *n = tensor->shape[1];
    int *tokens = allocate(tensor->count * 4);
    for (size_t i = 0; i < tensor->count; i++) tokens[i] = (int)element(tensor, i);
    return tokens;
}

static void decode_plainly(const Model *model, const Memory *memory, const Request *request)
{
    int batch = request->batch, n = request->n_prompt, n_ended = 0;
    Cache cache = empty_cache(model, batch, n + request->limit);
    unsigned char *valid = allocate((size_t)(batch * n)), *ended = allocate((size_t)batch);
    memset(valid, 1, (size_t)(batch * n));
    const int *tokens = request->prompt;
    for (int step = 0; step < request->limit && n_ended < batch; step++, n = 1) {
        call = text("decode/%d", step);
        Value states = decode(model, memory, &cache, tokens, valid, n);
        int *next = allocate((size_t)batch * 4);
        argmax(logits(model, take(states, n - 1, 1)), next);
        for (int b = 0; b < batch; b++) {
            if (ended[b]) next[b] = model->pad;
            valid[b] = !ended[b] && valid_token(model, next[b]);
            if (!ended[b] && next[b] == model->eos) ended[b] = 1, n_ended++;
        }
        decided("next_tokens", next, 1, batch, 0, 0);
        tokens = next;
    }
}

int main(int n_arguments, char **arguments)
{
    if (n_arguments < 4 || n_arguments > 5) fail("use: mu-port GOLDEN MODEL OUT [DRAFTER]");
    const char *folder = arguments[1];
    load_constants(text("%s/constants.safetensors", folder));
    load_weights(arguments[2]);
    if (n_arguments == 5) load_weights(arguments[4]);
    Model model = read_model();
    File given = read_tensors(text("%s/tensors.safetensors", folder));
    const char *manifest = read_text(text("%s/manifest.json", folder), NULL);
    Request request = {.limit = json_int(manifest, "max_new_tokens")};
    if (n_arguments == 5) request.draft_len = json_int(json_get(manifest, "search"), "draft_len");
    request.prompt = read_tokens(&given, "decode/0/tokens", &request.batch, &request.n_prompt);
    int batch, n_source;
    const int *source = read_tokens(&given, "encode/tokens", &batch, &n_source);
    Memory memory = remember(&model, source, find(&given, "encode/valid")->data, batch, n_source);
    (n_arguments == 5 ? decode_with_drafts : decode_plainly)(&model, &memory, &request);
    write_recorded(arguments[3]);
    release();
    return 0;
}

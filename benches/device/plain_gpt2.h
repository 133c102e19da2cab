/* GPT-2's passes, for plain.c. The dropout masks are jostle's, so that the results can be compared number by number. */
enum { N = C / H };

struct block {
    float ln_1_weight[C], ln_1_bias[C], attn_weight[C][3 * C], attn_bias[3 * C], projection_weight[C][C],
        projection_bias[C], ln_2_weight[C], ln_2_bias[C], fc_weight[C][F], fc_bias[F], mlp_weight[F][C], mlp_bias[C];
};

struct parameters {
    float wte[V][C], wpe[T][C];
    struct block h[L];
    float ln_f_weight[C], ln_f_bias[C];
#if !MODEL_TIED
    float lm_head[V][C];
#endif
};
#if MODEL_TIED
#define lm_head wte
#endif

enum { EMBEDDINGS = (V + T) * C, FINAL_NORM = 2 * C };
/* A block's tensors: their elements, and whether they decay. Matrices do, biases and norms do not. */
#define BLOCK \
    {2 * C, 0}, {3 * C * C, 1}, {3 * C, 0}, {C * C, 1}, {3 * C, 0}, {C * F, 1}, {F, 0}, {F * C, 1}, {C, 0}

static struct parameters parameters, gradients;

static struct activations {
    struct {
        float x[R][C], ln_1[R][C], mean_1[R], rstd_1[R], qkv[R][3 * C], weights[B][H][T][T], attended[R][C];
        float middle[R][C], ln_2[R][C], mean_2[R], rstd_2[R], hidden[R][F], activated[R][F];
    } h[L];
    float x[R][C], ln_f[R][C], mean[R], rstd[R], logits[R][V];
    /* Their gradients. */
    float d_x[R][C], d_branch[R][C], d_ln[R][C], d_qkv[R][3 * C], d_attended[R][C], d_hidden[R][F];
} a;

/* y [R, out] = x [R, in] weight [in, out] + bias. */
static void linear(float *y, const float *x, const float *weight, const float *bias, int rows, int in, int out)
{
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            float sum = bias[o];
            for (int i = 0; i < in; i++) sum += x[r * in + i] * weight[i * out + o];
            y[r * out + o] = sum;
        }
}

/* Overwrites d_x and the parameters' gradients. */
static void linear_backward(float *d_x, float *d_weight, float *d_bias, const float *d_y, const float *x,
                            const float *weight, int rows, int in, int out)
{
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < in; i++) {
            float sum = 0;
            for (int o = 0; o < out; o++) sum += d_y[r * out + o] * weight[i * out + o];
            d_x[r * in + i] = sum;
        }
    for (int i = 0; i < in; i++)
        for (int o = 0; o < out; o++) {
            float sum = 0;
            for (int r = 0; r < rows; r++) sum += x[r * in + i] * d_y[r * out + o];
            d_weight[i * out + o] = sum;
        }
    for (int o = 0; o < out; o++) {
        float sum = 0;
        for (int r = 0; r < rows; r++) sum += d_y[r * out + o];
        d_bias[o] = sum;
    }
}

static void layer_norm(float (*y)[C], float *mean, float *rstd, float (*x)[C], const float *weight, const float *bias)
{
    for (int r = 0; r < R; r++) {
        float sum = 0, squares = 0;
        for (int c = 0; c < C; c++) sum += x[r][c];
        mean[r] = sum / C;
        for (int c = 0; c < C; c++) squares += (x[r][c] - mean[r]) * (x[r][c] - mean[r]);
        rstd[r] = 1 / sqrtf(squares / C + MODEL_NORM_EPSILON);
        for (int c = 0; c < C; c++) y[r][c] = (x[r][c] - mean[r]) * rstd[r] * weight[c] + bias[c];
    }
}

/* Adds to d_x, overwrites the parameters' gradients. */
static void layer_norm_backward(float (*d_x)[C], float *d_weight, float *d_bias, float (*d_y)[C], float (*x)[C],
                                const float *mean, const float *rstd, const float *weight)
{
    for (int c = 0; c < C; c++) d_weight[c] = d_bias[c] = 0;
    for (int r = 0; r < R; r++) {
        float sum = 0, dot = 0;
        for (int c = 0; c < C; c++) {
            const float normed = (x[r][c] - mean[r]) * rstd[r], d = d_y[r][c] * weight[c];
            sum += d;
            dot += d * normed;
            d_weight[c] += d_y[r][c] * normed;
            d_bias[c] += d_y[r][c];
        }
        for (int c = 0; c < C; c++) {
            const float normed = (x[r][c] - mean[r]) * rstd[r];
            d_x[r][c] += rstd[r] * (d_y[r][c] * weight[c] - sum / C - normed * dot / C);
        }
    }
}

/* SplitMix64. */
static uint64_t mix(uint64_t key, uint64_t coordinate)
{
    uint64_t z = (key ^ coordinate * 0xD1342543DE82EF95u) + 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* The factor of an element of a row: 0, or one over the probability to survive. */
static float survives(uint64_t row, uint32_t column, float rate)
{
    const int32_t bound = (int32_t)(2 * (int64_t)(rate * 2147483648.0f) + INT32_MIN);
    uint32_t h = column * 0x9E3779B9u ^ (uint32_t)row;
    h ^= h >> 16;
    h = h * 0x7FEB352Du ^ (uint32_t)(row >> 32);
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    return (int32_t)h < bound ? 0 : 1 / (1 - rate);
}

/* The key of a row of a sequence's (or of a sequence's head's) mask. */
static uint64_t mask_row(int stream, int layer, int place, int row)
{
    return mix(mix(mix(mix(mix(seed, (uint64_t)stream), now), (uint64_t)layer), (uint64_t)place), (uint64_t)row);
}

static void dropout(float (*x)[C], int stream, int layer, float rate)
{
    if (rate == 0) return;
    for (int r = 0; r < R; r++) {
        const uint64_t row = mask_row(stream, layer, r / T, r % T);
        for (int c = 0; c < C; c++) x[r][c] *= survives(row, (uint32_t)c, rate);
    }
}

enum { EMBEDDING = 4, ATTENTION = 5, ATTENTION_PROJECTION = 6, MLP_PROJECTION = 7 };

static void attention(float (*out)[C], float (*weights)[H][T][T], float (*qkv)[3 * C], int layer)
{
    const float scale = 1 / sqrtf(N), rate = MODEL_ATTENTION_DROPOUT;
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) {
                const float *query = qkv[b * T + t] + h * N;
                float *w = weights[b][h][t], *y = out[b * T + t] + h * N, greatest = -1e30f, sum = 0;
                for (int s = 0; s <= t; s++) {
                    const float *key = qkv[b * T + s] + C + h * N;
                    float dot = 0;
                    for (int n = 0; n < N; n++) dot += query[n] * key[n];
                    w[s] = dot * scale;
                    if (w[s] > greatest) greatest = w[s];
                }
                for (int s = 0; s <= t; s++) sum += w[s] = expf(w[s] - greatest);
                for (int s = 0; s <= t; s++) w[s] /= sum;
                for (int n = 0; n < N; n++) y[n] = 0;
                const uint64_t row = rate > 0 ? mask_row(ATTENTION, layer, b * H + h, t) : 0;
                for (int s = 0; s <= t; s++) {
                    const float *value = qkv[b * T + s] + 2 * C + h * N;
                    const float weight = rate > 0 ? w[s] * survives(row, (uint32_t)s, rate) : w[s];
                    for (int n = 0; n < N; n++) y[n] += weight * value[n];
                }
            }
}

static void attention_backward(float (*d_qkv)[3 * C], float (*d_out)[C], float (*weights)[H][T][T], float (*qkv)[3 * C],
                               int layer)
{
    const float scale = 1 / sqrtf(N), rate = MODEL_ATTENTION_DROPOUT;
    for (int r = 0; r < R; r++)
        for (int c = 0; c < 3 * C; c++) d_qkv[r][c] = 0;
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) {
                const float *w = weights[b][h][t], *d_y = d_out[b * T + t] + h * N, *query = qkv[b * T + t] + h * N;
                float *d_query = d_qkv[b * T + t] + h * N, d_w[T], sum = 0;
                const uint64_t row = rate > 0 ? mask_row(ATTENTION, layer, b * H + h, t) : 0;
                for (int s = 0; s <= t; s++) {
                    const float *value = qkv[b * T + s] + 2 * C + h * N;
                    float *d_value = d_qkv[b * T + s] + 2 * C + h * N;
                    const float survivor = rate > 0 ? survives(row, (uint32_t)s, rate) : 1;
                    float dot = 0;
                    for (int n = 0; n < N; n++) {
                        dot += d_y[n] * value[n];
                        d_value[n] += w[s] * survivor * d_y[n];
                    }
                    d_w[s] = dot * survivor;
                    sum += d_w[s] * w[s];
                }
                for (int s = 0; s <= t; s++) {
                    const float *key = qkv[b * T + s] + C + h * N;
                    float *d_key = d_qkv[b * T + s] + C + h * N;
                    const float d_score = w[s] * (d_w[s] - sum) * scale;
                    for (int n = 0; n < N; n++) {
                        d_query[n] += d_score * key[n];
                        d_key[n] += d_score * query[n];
                    }
                }
            }
}

static void forward(const int32_t *tokens)
{
    const struct parameters *p = &parameters;
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) a.h[0].x[r][c] = p->wte[tokens[r]][c] + p->wpe[r % T][c];
    dropout(a.h[0].x, EMBEDDING, 0, MODEL_EMBEDDING_DROPOUT);
    for (int l = 0; l < L; l++) {
        const struct block *h = &p->h[l];
        float (*x)[C] = a.h[l].x, (*middle)[C] = a.h[l].middle, (*out)[C] = l + 1 < L ? a.h[l + 1].x : a.x;
        layer_norm(a.h[l].ln_1, a.h[l].mean_1, a.h[l].rstd_1, x, h->ln_1_weight, h->ln_1_bias);
        linear(*a.h[l].qkv, *a.h[l].ln_1, *h->attn_weight, h->attn_bias, R, C, 3 * C);
        attention(a.h[l].attended, a.h[l].weights, a.h[l].qkv, l);
        linear(*middle, *a.h[l].attended, *h->projection_weight, h->projection_bias, R, C, C);
        dropout(middle, ATTENTION_PROJECTION, l, MODEL_ATTENTION_PROJECTION_DROPOUT);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) middle[r][c] += x[r][c];
        layer_norm(a.h[l].ln_2, a.h[l].mean_2, a.h[l].rstd_2, middle, h->ln_2_weight, h->ln_2_bias);
        linear(*a.h[l].hidden, *a.h[l].ln_2, *h->fc_weight, h->fc_bias, R, C, F);
        for (int r = 0; r < R; r++)
            for (int f = 0; f < F; f++) {
                const float z = a.h[l].hidden[r][f];
                a.h[l].activated[r][f] = 0.5f * z * (1 + erff(z * 0.70710678f));
            }
        linear(*out, *a.h[l].activated, *h->mlp_weight, h->mlp_bias, R, F, C);
        dropout(out, MLP_PROJECTION, l, MODEL_MLP_PROJECTION_DROPOUT);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) out[r][c] += middle[r][c];
    }
    layer_norm(a.ln_f, a.mean, a.rstd, a.x, p->ln_f_weight, p->ln_f_bias);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            float sum = 0;
            for (int c = 0; c < C; c++) sum += a.ln_f[r][c] * p->lm_head[v][c];
            a.logits[r][v] = sum;
        }
}

static void backward(const int32_t *tokens)
{
    const struct parameters *p = &parameters;
    struct parameters *g = &gradients;
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) {
            float sum = 0;
            for (int v = 0; v < V; v++) sum += a.logits[r][v] * p->lm_head[v][c];
            a.d_ln[r][c] = sum;
            a.d_x[r][c] = 0;
        }
    for (int v = 0; v < V; v++)
        for (int c = 0; c < C; c++) {
            float sum = 0;
            for (int r = 0; r < R; r++) sum += a.logits[r][v] * a.ln_f[r][c];
            g->lm_head[v][c] = sum;
        }
    layer_norm_backward(a.d_x, g->ln_f_weight, g->ln_f_bias, a.d_ln, a.x, a.mean, a.rstd, p->ln_f_weight);
    for (int l = L - 1; l >= 0; l--) {
        const struct block *h = &p->h[l];
        struct block *d = &g->h[l];
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) a.d_branch[r][c] = a.d_x[r][c];
        dropout(a.d_branch, MLP_PROJECTION, l, MODEL_MLP_PROJECTION_DROPOUT);
        linear_backward(*a.d_hidden, *d->mlp_weight, d->mlp_bias, *a.d_branch, *a.h[l].activated, *h->mlp_weight, R, F,
                        C);
        for (int r = 0; r < R; r++)
            for (int f = 0; f < F; f++) {
                const float z = a.h[l].hidden[r][f];
                a.d_hidden[r][f] *= 0.5f * (1 + erff(z * 0.70710678f)) + z * 0.39894228f * expf(-0.5f * z * z);
            }
        linear_backward(*a.d_ln, *d->fc_weight, d->fc_bias, *a.d_hidden, *a.h[l].ln_2, *h->fc_weight, R, C, F);
        layer_norm_backward(a.d_x, d->ln_2_weight, d->ln_2_bias, a.d_ln, a.h[l].middle, a.h[l].mean_2, a.h[l].rstd_2,
                            h->ln_2_weight);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) a.d_branch[r][c] = a.d_x[r][c];
        dropout(a.d_branch, ATTENTION_PROJECTION, l, MODEL_ATTENTION_PROJECTION_DROPOUT);
        linear_backward(*a.d_attended, *d->projection_weight, d->projection_bias, *a.d_branch, *a.h[l].attended,
                        *h->projection_weight, R, C, C);
        attention_backward(a.d_qkv, a.d_attended, a.h[l].weights, a.h[l].qkv, l);
        linear_backward(*a.d_ln, *d->attn_weight, d->attn_bias, *a.d_qkv, *a.h[l].ln_1, *h->attn_weight, R, C, 3 * C);
        layer_norm_backward(a.d_x, d->ln_1_weight, d->ln_1_bias, a.d_ln, a.h[l].x, a.h[l].mean_1, a.h[l].rstd_1,
                            h->ln_1_weight);
    }
    dropout(a.d_x, EMBEDDING, 0, MODEL_EMBEDDING_DROPOUT);
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) g->wpe[t][c] = 0;
#if !MODEL_TIED
    for (int v = 0; v < V; v++)
        for (int c = 0; c < C; c++) g->wte[v][c] = 0;
#endif
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) {
            g->wte[tokens[r]][c] += a.d_x[r][c];
            g->wpe[r % T][c] += a.d_x[r][c];
        }
}

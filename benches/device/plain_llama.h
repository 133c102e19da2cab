/* Llama's passes, for plain.c: RMS norm, rotary positions, grouped queries, SwiGLU. It has no dropout. */
enum {
    K = MODEL_KV_HEADS ? MODEL_KV_HEADS : H, N = MODEL_HEAD_WIDTH ? MODEL_HEAD_WIDTH : C / H, Q = H * N, S = K * N
};

struct block {
    float norm_1[C], query[Q][C], key[S][C], value[S][C], out[C][Q], norm_2[C], gate[F][C], up[F][C], down[C][F];
};

struct parameters {
    float embedding[V][C];
    struct block h[L];
    float norm[C];
#if !MODEL_TIED
    float head[V][C];
#endif
};
#if MODEL_TIED
#define head embedding
#endif

enum { EMBEDDINGS = V * C, FINAL_NORM = C };
/* A block's tensors: their elements, and whether they decay. Matrices do, norms do not. */
#define BLOCK {C, 0}, {2 * Q * C + 2 * S * C, 1}, {C, 0}, {3 * F * C, 1}

static struct parameters parameters, gradients;

static struct activations {
    struct {
        float x[R][C], normed_1[R][C], rstd_1[R], query[R][Q], key[R][S], value[R][S], weights[B][H][T][T];
        float attended[R][Q], middle[R][C], normed_2[R][C], rstd_2[R], gate[R][F], up[R][F], activated[R][F];
    } h[L];
    float x[R][C], normed[R][C], rstd[R], logits[R][V], cos[T][N / 2], sin[T][N / 2];
    /* Their gradients. */
    float d_x[R][C], d_normed[R][C], d_query[R][Q], d_key[R][S], d_value[R][S], d_attended[R][Q], d_gate[R][F];
    float d_up[R][F];
} a;

/* y [R, out] = x [R, in] weight [out, in]^T. */
static void linear(float *y, const float *x, const float *weight, int in, int out)
{
    for (int r = 0; r < R; r++)
        for (int o = 0; o < out; o++) {
            float sum = 0;
            for (int i = 0; i < in; i++) sum += x[r * in + i] * weight[o * in + i];
            y[r * out + o] = sum;
        }
}

/* Adds to d_x, overwrites the weight's gradient. */
static void linear_backward(float *d_x, float *d_weight, const float *d_y, const float *x, const float *weight, int in,
                            int out)
{
    for (int r = 0; r < R; r++)
        for (int i = 0; i < in; i++) {
            float sum = 0;
            for (int o = 0; o < out; o++) sum += d_y[r * out + o] * weight[o * in + i];
            d_x[r * in + i] += sum;
        }
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++) {
            float sum = 0;
            for (int r = 0; r < R; r++) sum += x[r * in + i] * d_y[r * out + o];
            d_weight[o * in + i] = sum;
        }
}

static void rms_norm(float (*y)[C], float *rstd, float (*x)[C], const float *weight)
{
    for (int r = 0; r < R; r++) {
        float squares = 0;
        for (int c = 0; c < C; c++) squares += x[r][c] * x[r][c];
        rstd[r] = 1 / sqrtf(squares / C + MODEL_NORM_EPSILON);
        for (int c = 0; c < C; c++) y[r][c] = x[r][c] * rstd[r] * weight[c];
    }
}

/* Adds to d_x, overwrites the weight's gradient. */
static void rms_norm_backward(float (*d_x)[C], float *d_weight, float (*d_y)[C], float (*x)[C], const float *rstd,
                              const float *weight)
{
    for (int c = 0; c < C; c++) d_weight[c] = 0;
    for (int r = 0; r < R; r++) {
        float dot = 0;
        for (int c = 0; c < C; c++) {
            dot += d_y[r][c] * weight[c] * x[r][c] * rstd[r];
            d_weight[c] += d_y[r][c] * x[r][c] * rstd[r];
        }
        for (int c = 0; c < C; c++) d_x[r][c] += rstd[r] * (d_y[r][c] * weight[c] - x[r][c] * rstd[r] * dot / C);
    }
}

/* Rotates each head of x [R, width] by its position's angle, forth (1) or back (-1). */
static void rotate(float *x, int width, float direction)
{
    for (int r = 0; r < R; r++)
        for (int h = 0; h < width; h += N)
            for (int i = 0; i < N / 2; i++) {
                float *first = x + r * width + h + i, *second = first + N / 2;
                const float cosine = a.cos[r % T][i], sine = direction * a.sin[r % T][i], before = *first;
                *first = before * cosine - *second * sine;
                *second = *second * cosine + before * sine;
            }
}

static void attention(float (*out)[Q], float (*weights)[H][T][T], float (*queries)[Q], float (*keys)[S],
                      float (*values)[S])
{
    const float scale = 1 / sqrtf(N);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) {
                const int shared = h / (H / K) * N;
                const float *query = queries[b * T + t] + h * N;
                float *w = weights[b][h][t], *y = out[b * T + t] + h * N, greatest = -1e30f, sum = 0;
                for (int s = 0; s <= t; s++) {
                    const float *key = keys[b * T + s] + shared;
                    float dot = 0;
                    for (int n = 0; n < N; n++) dot += query[n] * key[n];
                    w[s] = dot * scale;
                    if (w[s] > greatest) greatest = w[s];
                }
                for (int s = 0; s <= t; s++) sum += w[s] = expf(w[s] - greatest);
                for (int s = 0; s <= t; s++) w[s] /= sum;
                for (int n = 0; n < N; n++) y[n] = 0;
                for (int s = 0; s <= t; s++) {
                    const float *value = values[b * T + s] + shared;
                    for (int n = 0; n < N; n++) y[n] += w[s] * value[n];
                }
            }
}

static void attention_backward(float (*weights)[H][T][T], float (*queries)[Q], float (*keys)[S], float (*values)[S])
{
    const float scale = 1 / sqrtf(N);
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < Q; c++) a.d_query[r][c] = 0;
        for (int c = 0; c < S; c++) a.d_key[r][c] = a.d_value[r][c] = 0;
    }
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) {
                const int shared = h / (H / K) * N;
                const float *w = weights[b][h][t], *d_y = a.d_attended[b * T + t] + h * N;
                const float *query = queries[b * T + t] + h * N;
                float *d_query = a.d_query[b * T + t] + h * N, d_w[T], sum = 0;
                for (int s = 0; s <= t; s++) {
                    const float *value = values[b * T + s] + shared;
                    float *d_value = a.d_value[b * T + s] + shared;
                    float dot = 0;
                    for (int n = 0; n < N; n++) {
                        dot += d_y[n] * value[n];
                        d_value[n] += w[s] * d_y[n];
                    }
                    d_w[s] = dot;
                    sum += dot * w[s];
                }
                for (int s = 0; s <= t; s++) {
                    const float *key = keys[b * T + s] + shared;
                    float *d_key = a.d_key[b * T + s] + shared;
                    const float d_score = w[s] * (d_w[s] - sum) * scale;
                    for (int n = 0; n < N; n++) {
                        d_query[n] += d_score * key[n];
                        d_key[n] += d_score * query[n];
                    }
                }
            }
}

/* Once, before the first step. */
static void angles(void)
{
    if (a.cos[0][0] == 1) return;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < N / 2; i++) {
            const float angle = (float)t / powf(MODEL_ROPE_THETA, 2 * (float)i / N);
            a.cos[t][i] = cosf(angle);
            a.sin[t][i] = sinf(angle);
        }
}

static void forward(const int32_t *tokens)
{
    const struct parameters *p = &parameters;
    angles();
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) a.h[0].x[r][c] = p->embedding[tokens[r]][c];
    for (int l = 0; l < L; l++) {
        const struct block *h = &p->h[l];
        float (*x)[C] = a.h[l].x, (*middle)[C] = a.h[l].middle, (*out)[C] = l + 1 < L ? a.h[l + 1].x : a.x;
        rms_norm(a.h[l].normed_1, a.h[l].rstd_1, x, h->norm_1);
        linear(*a.h[l].query, *a.h[l].normed_1, *h->query, C, Q);
        linear(*a.h[l].key, *a.h[l].normed_1, *h->key, C, S);
        linear(*a.h[l].value, *a.h[l].normed_1, *h->value, C, S);
        rotate(*a.h[l].query, Q, 1);
        rotate(*a.h[l].key, S, 1);
        attention(a.h[l].attended, a.h[l].weights, a.h[l].query, a.h[l].key, a.h[l].value);
        linear(*middle, *a.h[l].attended, *h->out, Q, C);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) middle[r][c] += x[r][c];
        rms_norm(a.h[l].normed_2, a.h[l].rstd_2, middle, h->norm_2);
        linear(*a.h[l].gate, *a.h[l].normed_2, *h->gate, C, F);
        linear(*a.h[l].up, *a.h[l].normed_2, *h->up, C, F);
        for (int r = 0; r < R; r++)
            for (int f = 0; f < F; f++) {
                const float z = a.h[l].gate[r][f];
                a.h[l].activated[r][f] = z / (1 + expf(-z)) * a.h[l].up[r][f];
            }
        linear(*out, *a.h[l].activated, *h->down, F, C);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) out[r][c] += middle[r][c];
    }
    rms_norm(a.normed, a.rstd, a.x, p->norm);
    linear(*a.logits, *a.normed, *p->head, C, V);
}

static void backward(const int32_t *tokens)
{
    const struct parameters *p = &parameters;
    struct parameters *g = &gradients;
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) a.d_x[r][c] = a.d_normed[r][c] = 0;
    linear_backward(*a.d_normed, *g->head, *a.logits, *a.normed, *p->head, C, V);
    rms_norm_backward(a.d_x, g->norm, a.d_normed, a.x, a.rstd, p->norm);
    for (int l = L - 1; l >= 0; l--) {
        const struct block *h = &p->h[l];
        struct block *d = &g->h[l];
        for (int r = 0; r < R; r++) {
            for (int f = 0; f < F; f++) a.d_gate[r][f] = 0;
            for (int c = 0; c < C; c++) a.d_normed[r][c] = 0;
            for (int c = 0; c < Q; c++) a.d_attended[r][c] = 0;
        }
        linear_backward(*a.d_gate, *d->down, *a.d_x, *a.h[l].activated, *h->down, F, C);
        for (int r = 0; r < R; r++)
            for (int f = 0; f < F; f++) {
                const float z = a.h[l].gate[r][f], sigmoid = 1 / (1 + expf(-z)), d_y = a.d_gate[r][f];
                a.d_up[r][f] = d_y * z * sigmoid;
                a.d_gate[r][f] = d_y * a.h[l].up[r][f] * sigmoid * (1 + z * (1 - sigmoid));
            }
        linear_backward(*a.d_normed, *d->gate, *a.d_gate, *a.h[l].normed_2, *h->gate, C, F);
        linear_backward(*a.d_normed, *d->up, *a.d_up, *a.h[l].normed_2, *h->up, C, F);
        rms_norm_backward(a.d_x, d->norm_2, a.d_normed, a.h[l].middle, a.h[l].rstd_2, h->norm_2);
        linear_backward(*a.d_attended, *d->out, *a.d_x, *a.h[l].attended, *h->out, Q, C);
        attention_backward(a.h[l].weights, a.h[l].query, a.h[l].key, a.h[l].value);
        rotate(*a.d_query, Q, -1);
        rotate(*a.d_key, S, -1);
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) a.d_normed[r][c] = 0;
        linear_backward(*a.d_normed, *d->query, *a.d_query, *a.h[l].normed_1, *h->query, C, Q);
        linear_backward(*a.d_normed, *d->key, *a.d_key, *a.h[l].normed_1, *h->key, C, S);
        linear_backward(*a.d_normed, *d->value, *a.d_value, *a.h[l].normed_1, *h->value, C, S);
        rms_norm_backward(a.d_x, d->norm_1, a.d_normed, a.h[l].x, a.h[l].rstd_1, h->norm_1);
    }
#if !MODEL_TIED
    for (int v = 0; v < V; v++)
        for (int c = 0; c < C; c++) g->embedding[v][c] = 0;
#endif
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) g->embedding[tokens[r]][c] += a.d_x[r][c];
}

// The engine's own CPU kernels, put into llama.cpp as one more "extra buffer type" of its CPU backend.
//
// Weights that are loaded while `flyweight_weights(1)` is in force are repacked (formats.hpp, matmul.hpp); attention is
// taken over wherever it fits (attention.hpp) while `flyweight_attention(1)` is. Everything else stays llama.cpp's.
#include "attention.hpp"
#include "check.hpp"
#include "logits.hpp"
#include "matmul.hpp"
#include "taps.hpp"

#include <sys/mman.h>

#include <atomic>

namespace flyweight {

std::atomic<bool> take_weights{false}, take_attention{false};

constexpr size_t PAGE = 4096, HUGE_PAGE = 2 << 20;

size_t whole_pages(size_t size) {
    return (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

// Zeros are written by giving whole pages back, which read as zeros from then on: the KV of many long streams, cleared
// when it is made, would otherwise take seconds and all its memory before the first token.
void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    uint8_t * const base = (uint8_t *) ggml_backend_buffer_get_base(buffer), * const end = base + buffer->size;
    uint8_t * const first = (uint8_t *) (((size_t) base + PAGE - 1) / PAGE * PAGE);
    uint8_t * const last = (uint8_t *) ((size_t) end / PAGE * PAGE);
    if (value == 0 && madvise(first, last - first, MADV_DONTNEED) == 0) {
        memset(base, 0, first - base);
        memset(last, 0, end - last);
    } else {
        memset(base, value, buffer->size);
    }
}

// Attention reads positions that lie on a page of 4 kB each: looking those up would take a third of its time. So large
// buffers of llama.cpp's own, the KV above all, are put on huge pages before they are first touched.
void adopt_large_buffers() {
    static ggml_backend_buffer_type_i & buffers = ggml_backend_cpu_buffer_type()->iface;
    static const auto allocate = buffers.alloc_buffer;
    buffers.alloc_buffer = [](ggml_backend_buffer_type_t type, size_t size) {
        const ggml_backend_buffer_t buffer = allocate(type, size);
        if (buffer && size >= 2 * HUGE_PAGE) {
            const size_t base = (size_t) ggml_backend_buffer_get_base(buffer), begin = whole_pages(base);
            madvise((void *) begin, base + size - begin, MADV_HUGEPAGE);
            buffer->iface.clear = clear;
        }
        return buffer;
    };
}

struct BufferType final : ggml::cpu::extra_buffer_type {
    ggml_backend_buffer_type type;
    AttentionOp attention;

    BufferType() {
        type.iface = {name, allocate, alignment, nullptr, packed_size, nullptr};
        type.device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
        type.context = static_cast<extra_buffer_type *>(this);
    }

    bool ours(const ggml_tensor * w) const { return w->buffer && w->buffer->buft == &type; }

    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        // While a model is loaded this asks whether a weight shall live here; later, whether it can be computed.
        const bool loading = op->src[0]->data == nullptr;
        return op->op == GGML_OP_MUL_MAT && ours(op->src[0]) && format_of(op->src[0]) && op->src[1]->type == GGML_TYPE_F32 &&
            op->src[1]->nb[0] == sizeof(float) && (take_weights || !loading);
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        if (op->op == GGML_OP_MUL_MAT) return ours(op->src[0]) ? format_of(op->src[0]) : nullptr;
        return op->op == GGML_OP_FLASH_ATTN_EXT && take_attention && AttentionOp::fits(op) ? &attention : nullptr;
    }

    // The buffer: huge pages of packed tensors. -----------------------------------------------------------------

    static const char * name(ggml_backend_buffer_type_t) { return "flyweight"; }
    static size_t alignment(ggml_backend_buffer_type_t) { return 64; }

    static size_t packed_size(ggml_backend_buffer_type_t, const ggml_tensor * w) {
        const Format * format = format_of(w);
        return format ? format->packed_bytes(w) : ggml_nbytes(w);
    }

    static ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
        void * base = mmap(nullptr, whole_pages(size) + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED) return nullptr;
        madvise(base, whole_pages(size) + HUGE_PAGE, MADV_HUGEPAGE);
        ggml_backend_buffer_i iface = {};
        iface.free_buffer = [](ggml_backend_buffer_t b) { munmap(b->context, whole_pages(b->size) + HUGE_PAGE); };
        iface.get_base = [](ggml_backend_buffer_t b) { return (void *) whole_pages((size_t) b->context); };
        iface.set_tensor = [](ggml_backend_buffer_t, ggml_tensor * w, const void * from, size_t offset, size_t size) {
            GGML_ASSERT(offset == 0 && size == ggml_nbytes(w));
            format_of(w)->pack(w, from);
        };
        iface.clear = [](ggml_backend_buffer_t b, uint8_t value) { memset((void *) whole_pages((size_t) b->context), value, b->size); };
        return ggml_backend_buffer_init(type, iface, base, size);
    }
};

ggml_backend_buffer_type_t buffer_type() {
    static BufferType * type = [] {
        auto * made = new BufferType;
        auto & types = ggml_backend_cpu_get_extra_buffer_types();
        types.insert(types.begin(), &made->type);
        adopt_large_buffers();
        return made;
    }();
    return &type->type;
}

}  // namespace flyweight

extern "C" {

// Put the buffer type first among the CPU's. Only effective before the first model is loaded.
void flyweight_register() {
    flyweight::buffer_type();
}

void flyweight_weights(int on) {
    flyweight::take_weights = on;
}

void flyweight_attention(int on) {
    flyweight::take_attention = on;
}

// Seconds so far in products and in attention.
void flyweight_clock(double * seconds) {
    seconds[0] = 1e-9 * flyweight::product_time;
    seconds[1] = 1e-9 * flyweight::attention_time;
}

// llama.cpp asks about every tensor of a batch, and shows those it was told are wanted.
bool flyweight_tap(ggml_tensor * t, bool ask, void * data) {
    auto * taps = (flyweight::Taps *) data;
    const int at = taps->find(t);
    if (ask) return at >= 0;
    if (at >= 0) taps->take(t, at);
    return true;
}

// Compare with plain loops; what is wrong goes to `message`, empty if nothing is.
void flyweight_check(char * message, size_t room) {
    const bool weights = flyweight::take_weights.exchange(true), attention = flyweight::take_attention.exchange(true);
    const std::string found = flyweight::Check().run(flyweight::buffer_type());
    flyweight::take_weights = weights;
    flyweight::take_attention = attention;
    snprintf(message, room, "%s", found.c_str());
}

// Draws `starts[r]` to `starts[r + 1]` are from row `r` of the logits, at their temperature and uniform number. For each
// row its summary, for each draw its token and that token's logit.
void flyweight_draw(const float * logits, int64_t rows, int64_t n, const int64_t * starts, const float * temperature,
                    const double * u, float * peak, float * mean, double * log_total, int64_t * token, float * logit,
                    int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t r = 0; r < rows; r++) {
        const float * row = logits + r * n;
        const flyweight::Summary s = flyweight::summary(row, n);
        peak[r] = s.peak;
        mean[r] = s.mean;
        log_total[r] = s.log_total;
        if (!std::isfinite(s.peak)) continue;
        std::vector<double> totals;
        for (int64_t d = starts[r]; d < starts[r + 1]; d++) {
            token[d] = flyweight::draw(row, n, s.peak, temperature[d], u[d], totals);
            logit[d] = row[token[d]];
        }
    }
}
}

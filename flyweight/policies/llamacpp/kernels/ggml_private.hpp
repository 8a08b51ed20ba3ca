// The few internal declarations of ggml that a CPU "extra buffer type" is made of: llama.cpp installs its public
// headers only. They follow ggml 0.25 (MIT licence, the ggml authors). Another version may lay them out differently,
// which is why kernels/__init__.py tries a new build in a process of its own before this one uses it.
#pragma once

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" {

struct ggml_backend_buffer_type_i {
    const char * (*get_name)(ggml_backend_buffer_type_t);
    ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t, size_t size);
    size_t (*get_alignment)(ggml_backend_buffer_type_t);
    size_t (*get_max_size)(ggml_backend_buffer_type_t);
    size_t (*get_alloc_size)(ggml_backend_buffer_type_t, const ggml_tensor *);
    bool (*is_host)(ggml_backend_buffer_type_t);
};

struct ggml_backend_buffer_type {
    ggml_backend_buffer_type_i iface;
    ggml_backend_dev_t device;
    void * context;
};

struct ggml_backend_buffer_i {
    void (*free_buffer)(ggml_backend_buffer_t);
    void * (*get_base)(ggml_backend_buffer_t);
    ggml_status (*init_tensor)(ggml_backend_buffer_t, ggml_tensor *);
    void (*memset_tensor)(ggml_backend_buffer_t, ggml_tensor *, uint8_t, size_t offset, size_t size);
    void (*set_tensor)(ggml_backend_buffer_t, ggml_tensor *, const void *, size_t offset, size_t size);
    void (*get_tensor)(ggml_backend_buffer_t, const ggml_tensor *, void *, size_t offset, size_t size);
    void * set_tensor_2d;
    void * get_tensor_2d;
    bool (*cpy_tensor)(ggml_backend_buffer_t, const ggml_tensor *, ggml_tensor *);
    void (*clear)(ggml_backend_buffer_t, uint8_t);
    void (*reset)(ggml_backend_buffer_t);
};

struct ggml_backend_buffer {
    ggml_backend_buffer_i iface;
    ggml_backend_buffer_type_t buft;
    void * context;
    size_t size;
    ggml_backend_buffer_usage usage;
};

ggml_backend_buffer_t ggml_backend_buffer_init(
    ggml_backend_buffer_type_t, ggml_backend_buffer_i, void * context, size_t size);

struct ggml_compute_params {
    int ith, nth;  // this thread, and how many there are
    size_t wsize;
    void * wdata;  // work space they share
    ggml_threadpool * threadpool;
    bool use_ref;
};

void ggml_barrier(ggml_threadpool *);
void ggml_threadpool_chunk_set(ggml_threadpool *, int);
int ggml_threadpool_chunk_add(ggml_threadpool *, int);
}

namespace ggml::cpu {
struct tensor_traits {
    virtual ~tensor_traits();
    virtual bool work_size(int n_threads, const ggml_tensor * op, size_t & size) = 0;
    virtual bool compute_forward(ggml_compute_params *, ggml_tensor * op) = 0;
};

struct extra_buffer_type {
    virtual ~extra_buffer_type();
    virtual bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) = 0;
    virtual tensor_traits * get_tensor_traits(const ggml_tensor * op) = 0;
};
}  // namespace ggml::cpu

std::vector<ggml_backend_buffer_type_t> & ggml_backend_cpu_get_extra_buffer_types();

// A CUDA driver without a GPU, for tests: the calls that the server makes to take memory of a client's process. Exported
// memory is a POSIX object, whose name is the handle. It ends the process when it is used in a way that the real driver
// forbids, and notes what was opened and closed in the file that FAKE_CUDA_LOG names. FAKE_CUDA_GPUS states the GPUs that there
// are, each as its memory in MiB and what is free of it: "1024:1024,2048:512".
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct { char reserved[64]; } handle_t;
typedef struct { void *address; size_t size; int open; } mapping_t;
enum { OK = 0, INVALID_VALUE = 1, INVALID_DEVICE = 101, MAX_GPUS = 8, MAX_MAPPINGS = 64, MAX_DEPTH = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mapping_t mappings[MAX_MAPPINGS];
static int retained[MAX_GPUS], mapped;
static _Thread_local void *stack[MAX_DEPTH];
static _Thread_local int depth, unsynchronized;

static void demand(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "the CUDA driver was misused: %s\n", what);
    abort();
}

static void note(const char *what) {
    FILE *file = fopen(getenv("FAKE_CUDA_LOG"), "a");
    demand(file != NULL, "no log");
    fprintf(file, "%s\n", what);
    fclose(file);
}

static void *context(int device) { return &retained[device]; }
static int current(void) {
    demand(depth > 0, "no context is current");
    int device = (int)((int *)stack[depth - 1] - retained);
    demand(retained[device] > 0, "a context is used that was released");
    return device;
}

// The memory of a GPU and what is free of it, in bytes; both are 0 where there is none.
static void memory_of(int device, size_t *total, size_t *free_bytes) {
    const char *stated = getenv("FAKE_CUDA_GPUS");
    if (stated == NULL) stated = "1024:1024,1024:1024";
    for (; stated != NULL && device > 0; device--) stated = strchr(stated, ',') ? strchr(stated, ',') + 1 : NULL;
    *total = *free_bytes = 0;
    if (stated == NULL) return;
    demand(sscanf(stated, "%zu:%zu", total, free_bytes) == 2, "FAKE_CUDA_GPUS cannot be read");
    *total <<= 20;
    *free_bytes <<= 20;
}
static int gpus(void) {
    size_t total, free_bytes;
    for (int count = 0; count < MAX_GPUS; count++) {
        memory_of(count, &total, &free_bytes);
        if (total == 0) return count;
    }
    return MAX_GPUS;
}

int cuInit(unsigned flags) { return flags == 0 ? OK : INVALID_VALUE; }
int cuGetErrorString(int error, const char **text) {
    *text = error == INVALID_VALUE ? "invalid argument" : "invalid device ordinal";
    return OK;
}
int cuDeviceGetCount(int *count) { *count = gpus(); return OK; }
int cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= gpus()) return INVALID_DEVICE;
    *device = ordinal;
    return OK;
}
int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, (size_t)length, "GPU of the tests %d", device);
    return OK;
}
int cuDeviceGetUuid(char *uuid, int device) {
    memset(uuid, 0, 16);
    uuid[15] = (char)(0xa0 + device);
    return OK;
}
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { memory_of(current(), total, free_bytes); return OK; }

int cuDevicePrimaryCtxRetain(void **made, int device) {
    pthread_mutex_lock(&lock);
    retained[device]++;
    pthread_mutex_unlock(&lock);
    *made = context(device);
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    pthread_mutex_lock(&lock);
    demand(retained[device]-- > 0, "a context is released that was not retained");
    pthread_mutex_unlock(&lock);
    return OK;
}
int cuCtxPushCurrent_v2(void *pushed) {
    demand(depth < MAX_DEPTH, "contexts are pushed and not popped");
    stack[depth++] = pushed;
    current();
    return OK;
}
int cuCtxPopCurrent_v2(void **popped) {
    demand(depth > 0, "a context is popped that was not pushed");
    demand(!unsynchronized, "a client is told of bytes that are not on the GPU yet");
    *popped = stack[--depth];
    return OK;
}

// The handle's first byte is the GPU, a POSIX object's name follows.
int cuIpcOpenMemHandle_v2(unsigned long long *address, handle_t handle, unsigned flags) {
    demand(flags == 1, "peer access is not enabled lazily");
    if (handle.reserved[0] != current()) return INVALID_VALUE;
    handle.reserved[63] = 0;
    int file = shm_open(handle.reserved + 1, O_RDWR, 0);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) return INVALID_VALUE;
    void *memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    demand(mapped < MAX_MAPPINGS, "too many mappings for these tests");
    mappings[mapped++] = (mapping_t){memory, (size_t)status.st_size, 1};
    note("open");
    pthread_mutex_unlock(&lock);
    *address = (unsigned long long)memory;
    return OK;
}

static mapping_t *find(unsigned long long address, size_t length) {
    mapping_t *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < mapped; i++) {
        unsigned long long begin = (unsigned long long)mappings[i].address;
        if (mappings[i].open && begin <= address && address + length <= begin + mappings[i].size) found = &mappings[i];
    }
    pthread_mutex_unlock(&lock);
    demand(found != NULL, "memory is used that is not mapped");
    return found;
}

int cuMemGetAddressRange_v2(unsigned long long *base, size_t *size, unsigned long long address) {
    current();
    mapping_t *mapping = find(address, 0);
    *base = (unsigned long long)mapping->address;
    *size = mapping->size;
    return OK;
}
int cuIpcCloseMemHandle(unsigned long long address) {
    current();
    mapping_t *mapping = find(address, 0);
    pthread_mutex_lock(&lock);
    demand(mapping->open && (unsigned long long)mapping->address == address, "what is closed was not opened");
    mapping->open = 0;
    munmap(mapping->address, mapping->size);
    note("close");
    pthread_mutex_unlock(&lock);
    return OK;
}
int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t length) {
    current();
    find(from, length);
    memcpy(to, (void *)from, length);
    return OK;
}
int cuMemcpyHtoD_v2(unsigned long long to, const void *from, size_t length) {
    current();
    find(to, length);
    memcpy((void *)to, from, length);
    unsynchronized = 1;
    return OK;
}
int cuStreamSynchronize(void *stream) {
    current();
    demand(stream == NULL, "an unknown stream");
    unsynchronized = 0;
    return OK;
}

/*
 * A PKCS#11 module that counts the signatures of one key, so that a program's record can be held against what its HSM did.
 *
 * It loads the module that COUNT_MODULE names and passes every call on. Each C_Sign that gave a signature by a key with
 * the label COUNT_LABEL adds one to the number in the file COUNT_FILE: eight octets, mapped, so that they are right also
 * when the process is killed.
 *
 *   cc -O2 -Wall -Wextra -shared -fPIC -o count.so count.c
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long number;

struct attribute {
    number type;
    void *value;
    number length;
};

/* PKCS #11 2.40, section 3.6: a version, and the functions in their fixed order. */
enum { GET_ATTRIBUTE_VALUE = 24, SIGN_INIT = 42, SIGN = 43, FUNCTIONS = 68 };
struct functions {
    unsigned char version[2];
    void *function[FUNCTIONS];
};

enum { CKA_LABEL = 3, SESSIONS = 4096, OK = 0, GENERAL_ERROR = 5, ARGUMENTS_BAD = 7 };

static struct functions real, ours;
static _Atomic uint64_t *count;
static const char *label;
/* Whether a session's operation is one of the key; a session has one at a time. */
static _Atomic int counted[SESSIONS];

static int is_the_key(number session, number key) {
    number (*get)(number, number, struct attribute *, number) = real.function[GET_ATTRIBUTE_VALUE];
    char name[256];
    struct attribute wanted = {CKA_LABEL, name, sizeof name};
    return get(session, key, &wanted, 1) == OK && wanted.length == strlen(label) && !memcmp(name, label, wanted.length);
}

static number sign_init(number session, void *mechanism, number key) {
    number (*next)(number, void *, number) = real.function[SIGN_INIT];
    int is = is_the_key(session, key);
    number code = next(session, mechanism, key);
    if (code == OK)
        counted[session % SESSIONS] = is;
    return code;
}

static number sign(number session, void *data, number length, void *signature, number *signature_length) {
    number (*next)(number, void *, number, void *, number *) = real.function[SIGN];
    number code = next(session, data, length, signature, signature_length);
    /* Without a place for it only the length is asked for. */
    if (code == OK && signature && counted[session % SESSIONS])
        atomic_fetch_add(count, 1);
    return code;
}

static const char *environment(const char *name) {
    const char *value = getenv(name);
    if (!value)
        fprintf(stderr, "count: %s is not set\n", name);
    return value;
}

number C_GetFunctionList(struct functions **list) {
    if (!list)
        return ARGUMENTS_BAD;
    if (!count) {
        const char *module = environment("COUNT_MODULE"), *path = environment("COUNT_FILE");
        label = environment("COUNT_LABEL");
        if (!module || !path || !label)
            return GENERAL_ERROR;
        void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
        number (*get)(struct functions **) = library ? dlsym(library, "C_GetFunctionList") : NULL;
        int file = open(path, O_RDWR | O_CREAT, 0600);
        struct functions *theirs;
        if (!get || file < 0 || ftruncate(file, sizeof *count) || get(&theirs) != OK) {
            fprintf(stderr, "count: %s cannot be loaded, or %s not be written\n", module, path);
            return GENERAL_ERROR;
        }
        void *memory = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        if (memory == MAP_FAILED)
            return GENERAL_ERROR;
        real = ours = *theirs;
        ours.function[SIGN_INIT] = sign_init;
        ours.function[SIGN] = sign;
        count = memory;
    }
    *list = &ours;
    return OK;
}

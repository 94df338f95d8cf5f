/*
 * model_files.h - copies of tests/data/models in a temporary directory, to be changed and broken.
 *
 * Every function asserts: a change that does not apply is the test's own mistake.
 */
#ifndef TESTS_MODEL_FILES_H
#define TESTS_MODEL_FILES_H

#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include <jansson.h>

#include "os/file.h"
#include "os/sysalloc.h"

enum { PATH_SIZE = 512 };

/** "directory/file" in `path`, which is returned. */
static inline char *path_in(const char *directory, const char *file, char path[PATH_SIZE])
{
    assert_true(snprintf(path, PATH_SIZE, "%s/%s", directory, file) < PATH_SIZE);
    return path;
}

/** A whole file with a NUL behind it; freed with free_file(). */
static inline char *load_file(const char *directory, const char *file, size_t *size_p)
{
    char path[PATH_SIZE], *data = NULL;
    struct mc_error error = { 0 };

    if (os_file_read(path_in(directory, file, path), 1 << 24, os_alloc(), &data, size_p, &error))
        fail_msg("%s", error.text);
    return data;
}

static inline void free_file(char *data)
{
    os_alloc()->free(os_alloc()->context, data);
}

static inline void save_file(const char *directory, const char *file, const void *data, size_t size)
{
    char path[PATH_SIZE];

    test_write(path_in(directory, file, path), data, size);
}

static inline void remove_file(const char *directory, const char *file)
{
    char path[PATH_SIZE];

    assert_int_equal(remove(path_in(directory, file, path)), 0);
}

/** A fresh directory with the files of tests/data/models/<model>; test_remove() it. */
static inline void copy_model(const char *model, char directory[64])
{
    char source[PATH_SIZE];

    snprintf(source, sizeof(source), "models/%s", model);
    snprintf(source, sizeof(source), "%s", test_data(source));
    test_directory(directory);
    DIR *dir = opendir(source);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t size;
        if (entry->d_name[0] == '.')
            continue;
        char *data = load_file(source, entry->d_name, &size);
        save_file(directory, entry->d_name, data, size);
        free_file(data);
    }
    closedir(dir);
}

/* The part of a file that is JSON: a safetensors file's header, else all of it. */
static inline size_t json_begin(const char *file)
{
    const size_t size = strlen(file), end = strlen(".safetensors");

    return size > end && !strcmp(file + size - end, ".safetensors") ? 8 : 0;
}

static inline size_t json_size(const char *data, size_t begin, size_t size)
{
    size_t length = 0;

    for (size_t i = begin; i-- > 0;)
        length = length << 8 | (unsigned char)data[i];
    return begin ? length : size;
}

/* value NULL removes the member; "=name" gives it another name. */
static inline void edit(json_t *object, const char *key, const char *value)
{
    if (!value || value[0] == '=') {
        json_t *old = json_incref(json_object_get(object, key));
        assert_non_null(old);
        assert_int_equal(json_object_del(object, key), 0);
        if (value)
            assert_int_equal(json_object_set(object, value + 1, old), 0);
        json_decref(old);
        return;
    }
    json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(parsed);
    assert_int_equal(json_object_set_new(object, key, parsed), 0);
}

/**
 * Change one member of a JSON file, or of a safetensors file's header, whose length is kept right.
 *
 * key, inner  the member: key, or, if inner is not NULL, inner of the object that is key.
 * value       JSON text; NULL removes the member; "=name" renames it.
 */
static inline void change_json(const char *directory, const char *file, const char *key,
                               const char *inner, const char *value)
{
    size_t size;
    char *data = load_file(directory, file, &size);
    const size_t begin = json_begin(file), length = json_size(data, begin, size);
    json_t *json = json_loadb(data + begin, length, 0, NULL);

    assert_non_null(json);
    edit(inner ? json_object_get(json, key) : json, inner ? inner : key, value);
    char *text = json_dumps(json, JSON_COMPACT);
    const size_t text_size = strlen(text), data_size = begin ? size - begin - length : 0;
    char *out = malloc(begin + text_size + data_size);
    assert_non_null(out);
    for (size_t i = 0; i < begin; i++)
        out[i] = (char)(text_size >> 8 * i & 0xff);
    memcpy(out + begin, text, text_size);
    memcpy(out + begin + text_size, data + size - data_size, data_size);
    save_file(directory, file, out, begin + text_size + data_size);
    free(out);
    free(text);
    json_decref(json);
    free_file(data);
}

/** Put `to` in the place of the first `from` in a file's bytes. */
static inline void change_text(const char *directory, const char *file, const char *from,
                               const char *to)
{
    size_t size;
    char *data = load_file(directory, file, &size), *place = NULL;
    const size_t old = strlen(from), new = strlen(to);

    for (size_t i = 0; i + old <= size && !place; i++)
        if (!memcmp(data + i, from, old))
            place = data + i;
    assert_non_null(place);
    char *out = malloc(size - old + new);
    assert_non_null(out);
    const size_t before = (size_t)(place - data);
    memcpy(out, data, before);
    memcpy(out + before, to, new);
    memcpy(out + before + new, place + old, size - before - old);
    save_file(directory, file, out, size - old + new);
    free(out);
    free_file(data);
}

#endif /* TESTS_MODEL_FILES_H */
